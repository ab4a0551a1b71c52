"""Kernels in Triton that take the sums of all layers on a CUDA device at once.

A program takes one chunk of a layer, and a launch the chunks of all layers: tables on
the device say where they begin, and where in memory their tensors lie. Sums of a chunk
are in float32, over lanes that are added as a tree; those of a layer's chunks are added
up in float64, in their order, by one program. So there are no atomics of floats, and
the result is the same to the last bit each time.

On the CPU these have run in Triton's interpreter alone; for GPUs they are compiled by
the tests.
"""

import triton
import triton.language as tl

from dynoscope.measurement import Sum
from dynoscope.metrics.sums.triton_parts import (
    TINY,
    add_up,
    is_nonfinite,
    joined,
    pair,
    read,
    sum_all,
    total,
    write,
    write_units,
)

__all__ = ["after", "before", "count", "gather"]

WEIGHT_GRAD = tl.constexpr(int(Sum.WEIGHT_GRAD))
GRAD_SQ = tl.constexpr(int(Sum.GRAD_SQ))
MOMENTUM_GRAD = tl.constexpr(int(Sum.MOMENTUM_GRAD))
MOMENTUM_SQ = tl.constexpr(int(Sum.MOMENTUM_SQ))
GRAD_ABS = tl.constexpr(int(Sum.GRAD_ABS))
WEIGHT_SQ = tl.constexpr(int(Sum.WEIGHT_SQ))
WEIGHT_UPDATE = tl.constexpr(int(Sum.WEIGHT_UPDATE))
TURN_SQ = tl.constexpr(int(Sum.TURN_SQ))
GRAD_UPDATE = tl.constexpr(int(Sum.GRAD_UPDATE))
MOVED = tl.constexpr(int(Sum.MOVED))
WEIGHT_MAX = tl.constexpr(int(Sum.WEIGHT_MAX))
SCALED_GRAD_SQ = tl.constexpr(int(Sum.SCALED_GRAD_SQ))
WEIGHT_SCALED_GRAD = tl.constexpr(int(Sum.WEIGHT_SCALED_GRAD))
OUTSIDE = tl.constexpr(int(Sum.OUTSIDE))
AT_EDGE = tl.constexpr(int(Sum.AT_EDGE))


@triton.jit
def before(
    chunks: tl.tensor,
    weights: tl.tensor,
    kept: tl.tensor,
    grads: tl.tensor,
    momenta: tl.tensor,
    limits: tl.tensor,
    partial: tl.tensor,
    slots: tl.tensor,
    lanes: tl.constexpr,
):
    """Take a chunk's sums before the step; keep its weights, if they are not the kept.

    Args:
        chunks: table of chunks, of one unit each.
        weights: table of inputs: the weights,
        kept: the buffers that they are kept in,
        grads: the gradients,
        momenta: and the momenta.
        limits: per layer, the half width of its box, and where its edge begins; NaN
            where there is none.
        partial: the chunks' sums, a row per `Sum`.
        slots: length of such a row.
        lanes: elements at once.
    """
    chunks += tl.program_id(0) * 6
    layer = tl.load(chunks)
    start = tl.load(chunks + 1)
    length = tl.load(chunks + 3).to(tl.int32)
    out = partial + tl.load(chunks + 5)
    w_at, w_kind = pair(weights, layer)
    g_at, g_kind = pair(grads, layer)
    m_at, m_kind = pair(momenta, layer)
    kept_at, _ = pair(kept, layer)
    limit, edge = pair(limits, layer)
    wg = tl.zeros((lanes,), tl.float32)
    gg, mg, mm, g_abs, outside, at_edge = wg, wg, wg, wg, wg, wg
    largest = tl.zeros((lanes,), tl.int32)
    for begin in range(0, length, lanes):
        at = begin + tl.arange(0, lanes)
        inside, offsets = at < length, start + at
        w = read(w_at, w_kind, offsets, inside)
        g = read(g_at, g_kind, offsets, inside)
        m = read(m_at, m_kind, offsets, inside)
        if w_at != kept_at:
            write(kept_at, w_kind, offsets, inside, w)
        wg += w * g
        gg += g * g
        mg += m * g
        mm += m * m
        g_abs += tl.abs(g)
        size = tl.abs(w)
        outside += tl.where(size > limit, 1.0, 0.0)
        at_edge += tl.where(size >= edge, 1.0, 0.0)
        # As integers, sizes are in the order of the numbers, and NaN beyond them.
        largest = tl.maximum(largest, size.to(tl.int32, bitcast=True))
    tl.store(out + WEIGHT_GRAD * slots, tl.sum(wg, 0))
    tl.store(out + GRAD_SQ * slots, tl.sum(gg, 0))
    tl.store(out + MOMENTUM_GRAD * slots, tl.sum(mg, 0))
    tl.store(out + MOMENTUM_SQ * slots, tl.sum(mm, 0))
    tl.store(out + GRAD_ABS * slots, tl.sum(g_abs, 0))
    tl.store(out + OUTSIDE * slots, tl.sum(outside, 0))
    tl.store(out + AT_EDGE * slots, tl.sum(at_edge, 0))
    most = tl.max(largest, 0).to(tl.float32, bitcast=True)
    tl.store(out + WEIGHT_MAX * slots, most)


@triton.jit
def after(
    chunks: tl.tensor,
    weights: tl.tensor,
    kept: tl.tensor,
    grads: tl.tensor,
    seconds: tl.tensor,
    divisors: tl.tensor,
    corrections: tl.tensor,
    channels_of: tl.tensor,
    partial: tl.tensor,
    slots: tl.tensor,
    rows: tl.tensor,
    row_stride: tl.tensor,
    channels: tl.tensor,
    channel_stride: tl.tensor,
    units: tl.constexpr,
    width: tl.constexpr,
):
    """Take a chunk's sums of what the step has changed, each unit's turn by itself.

    Args:
        chunks: table of chunks, of up to `units` units each.
        weights: table of inputs: the weights after the step,
        kept: before it,
        grads: the gradients,
        seconds: and the second moments.
        divisors: per layer, their bias correction, and what is added to their root.
        corrections: per layer, where else the bias correction lies, or 0.
        channels_of: per layer, its first channel; -1 where it has none.
        partial: the chunks' sums, a row per `Sum`.
        slots: length of such a row.
        rows: row sums, UNIT_SUMS of `row_stride` each.
        row_stride: see there.
        channels: channel quantities, of `channel_stride` each.
        channel_stride: see there.
        units: units of a chunk at most.
        width: elements of each at once.
    """
    chunks += tl.program_id(0) * 6
    layer = tl.load(chunks)
    start = tl.load(chunks + 1)
    count = tl.load(chunks + 2).to(tl.int32)
    length = tl.load(chunks + 3).to(tl.int32)
    row = tl.load(chunks + 4)
    out = partial + tl.load(chunks + 5)
    w_at, w_kind = pair(weights, layer)
    g_at, g_kind = pair(grads, layer)
    v_at, v_kind = pair(seconds, layer)
    kept_at, _ = pair(kept, layer)
    correction, eps = pair(divisors, layer)
    elsewhere = tl.load(corrections + layer)
    if elsewhere != 0:
        correction = tl.load(elsewhere.to(tl.pointer_type(tl.float32)))
    channel = tl.load(channels_of + layer)
    unit, column = tl.arange(0, units)[:, None], tl.arange(0, width)[None, :]
    gd = tl.zeros((units, width), tl.float32)
    moved, uu, wu = gd, gd, gd
    ww = tl.zeros((units,), tl.float32)
    wd, turn_sq = ww, ww
    for begin in range(0, length, width):
        at = begin + column
        inside = (unit < count) & (at < length)
        offsets = start + unit.to(tl.int64) * length + at
        w = read(kept_at, w_kind, offsets, inside)
        g = read(g_at, g_kind, offsets, inside)
        v = read(v_at, v_kind, offsets, inside)
        d = read(w_at, w_kind, offsets, inside) - w
        gd += g * d
        moved += tl.where(d != 0, 1.0, 0.0)
        u = tl.div_rn(g, tl.div_rn(tl.sqrt_rn(v), correction) + eps)
        u = tl.where(inside & (g_at != 0) & (v_at != 0), u, 0.0)
        uu += u * u
        wu += w * u
        ww, wd, turn_sq = joined(ww, wd, turn_sq, w, d)
        if channel >= 0:
            place = channels + channel + offsets
            tl.store(place, g, mask=inside)
            tl.store(place + channel_stride, w, mask=inside)
            tl.store(place + 2 * channel_stride, d, mask=inside)
    tl.store(out + GRAD_UPDATE * slots, sum_all(gd))
    tl.store(out + MOVED * slots, sum_all(moved))
    tl.store(out + SCALED_GRAD_SQ * slots, sum_all(uu))
    tl.store(out + WEIGHT_SCALED_GRAD * slots, sum_all(wu))
    at = out + WEIGHT_SQ * slots
    write_units(at, slots, tl.sum(ww, 0), tl.sum(wd, 0), tl.sum(turn_sq, 0), True)
    unit = tl.arange(0, units)
    is_row = (unit < count) & (row >= 0)
    write_units(rows + row + unit, row_stride, ww, wd, turn_sq, is_row)


@triton.jit
def gather(
    places: tl.tensor,
    partial: tl.tensor,
    slots: tl.tensor,
    sums: tl.tensor,
    stride: tl.tensor,
    dirty: tl.tensor,
    counts: tl.tensor,
    lanes: tl.constexpr,
):
    """Add up the chunks of a layer.

    Args:
        places: per layer, first and last + 1 of its slots before and after the step.
        partial: the chunks' sums, a row per `Sum`.
        slots: length of such a row.
        sums: the layers' sums, a row per `Sum`.
        stride: from one such row to the next.
        dirty: per layer, whether a sum is NaN or infinite: there may be something to
            count.
        counts: per layer, set to 0.
        lanes: slots at once.
    """
    layer = tl.program_id(0)
    first, last = pair(places, 2 * layer)
    out = sums + layer
    gg = total(partial + GRAD_SQ * slots, first, last, lanes)
    mm = total(partial + MOMENTUM_SQ * slots, first, last, lanes)
    tl.store(out + GRAD_SQ * stride, gg)
    tl.store(out + MOMENTUM_SQ * stride, mm)
    add_up(partial, slots, first, last, out, stride, WEIGHT_GRAD, lanes)
    add_up(partial, slots, first, last, out, stride, MOMENTUM_GRAD, lanes)
    add_up(partial, slots, first, last, out, stride, GRAD_ABS, lanes)
    add_up(partial, slots, first, last, out, stride, OUTSIDE, lanes)
    add_up(partial, slots, first, last, out, stride, AT_EDGE, lanes)
    most = tl.zeros((lanes,), tl.int32)
    for begin in range(first, last, lanes):
        at = begin + tl.arange(0, lanes)
        x = tl.load(partial + WEIGHT_MAX * slots + at, mask=at < last, other=0.0)
        most = tl.maximum(most, x.to(tl.int32, bitcast=True))
    tl.store(out + WEIGHT_MAX * stride, tl.max(most, 0).to(tl.float32, bitcast=True))
    first, last = pair(places, 2 * layer + 1)
    add_up(partial, slots, first, last, out, stride, GRAD_UPDATE, lanes)
    add_up(partial, slots, first, last, out, stride, MOVED, lanes)
    add_up(partial, slots, first, last, out, stride, SCALED_GRAD_SQ, lanes)
    add_up(partial, slots, first, last, out, stride, WEIGHT_SCALED_GRAD, lanes)
    # Of a layer with rows these mean little: its rows are its units.
    ww = total(partial + WEIGHT_SQ * slots, first, last, lanes)
    wd = total(partial + WEIGHT_UPDATE * slots, first, last, lanes)
    slope = wd / tl.maximum(ww, TINY)
    turn_sq = tl.zeros((lanes,), tl.float64)
    for begin in range(first, last, lanes):
        at = begin + tl.arange(0, lanes)
        here, place = at < last, partial + at
        a = tl.load(place + WEIGHT_SQ * slots, mask=here, other=0.0).to(tl.float64)
        b = tl.load(place + WEIGHT_UPDATE * slots, mask=here, other=0.0)
        t = tl.load(place + TURN_SQ * slots, mask=here, other=0.0)
        differs = b / tl.maximum(a, TINY) - slope
        turn_sq += t + a * differs * differs
    turned = tl.sum(turn_sq, 0)
    write_units(out + WEIGHT_SQ * stride, stride, ww, wd, turned, True)
    found = gg + mm + ww + turned + tl.abs(wd)
    tl.store(dirty + layer, (found - found != 0).to(tl.int32))
    tl.store(counts + layer, 0)


@triton.jit
def count(
    chunks: tl.tensor,
    weights: tl.tensor,
    grads: tl.tensor,
    momenta: tl.tensor,
    dirty: tl.tensor,
    counts: tl.tensor,
    lanes: tl.constexpr,
):
    """Count a chunk's NaN and infinite entries, if its layer is known to have any.

    Args:
        chunks: table of chunks, of one unit each.
        weights: table of inputs: the weights after the step,
        grads: the gradients,
        momenta: and the momenta after it.
        dirty: per layer, whether there is anything to count.
        counts: per layer, added to; integers, so that their order does not matter.
        lanes: elements at once.
    """
    chunks += tl.program_id(0) * 6
    layer = tl.load(chunks)
    if tl.load(dirty + layer) != 0:
        start = tl.load(chunks + 1)
        length = tl.load(chunks + 3).to(tl.int32)
        w_at, w_kind = pair(weights, layer)
        g_at, g_kind = pair(grads, layer)
        m_at, m_kind = pair(momenta, layer)
        found = tl.zeros((lanes,), tl.int32)
        for begin in range(0, length, lanes):
            at = begin + tl.arange(0, lanes)
            inside, offsets = at < length, start + at
            found += is_nonfinite(read(w_at, w_kind, offsets, inside))
            found += is_nonfinite(read(g_at, g_kind, offsets, inside))
            found += is_nonfinite(read(m_at, m_kind, offsets, inside))
        tl.atomic_add(counts + layer, tl.sum(found, 0).to(tl.int64))
