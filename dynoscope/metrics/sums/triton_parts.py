"""What the kernels in Triton are made of: reading, writing, joining sums."""

import triton
import triton.language as tl

__all__ = [
    "TINY",
    "add_up",
    "is_nonfinite",
    "joined",
    "pair",
    "read",
    "sum_all",
    "total",
    "write",
    "write_units",
]

TINY = tl.constexpr(2.0**-126)
"""The smallest normal float32."""


@triton.jit
def pair(table, at):
    """A row of a table with two columns."""
    return tl.load(table + 2 * at), tl.load(table + 2 * at + 1)


@triton.jit
def read(address, kind, offsets, inside):
    """Elements as float32; 0 where there are none."""
    here = inside & (address != 0)
    if kind == 0:
        x = _read_as(address, offsets, here, tl.float32)
    elif kind == 1:
        x = _read_as(address, offsets, here, tl.bfloat16)
    else:
        x = _read_as(address, offsets, here, tl.float16)
    return x


@triton.jit
def _read_as(address, offsets, here, dtype: tl.constexpr):
    x = tl.load(address.to(tl.pointer_type(dtype)) + offsets, mask=here, other=0.0)
    return x.to(tl.float32)


@triton.jit
def write(address, kind, offsets, inside, x):
    """Elements that were read as this kind, as they were."""
    if kind == 0:
        _write_as(address, offsets, inside, x, tl.float32)
    elif kind == 1:
        _write_as(address, offsets, inside, x, tl.bfloat16)
    else:
        _write_as(address, offsets, inside, x, tl.float16)


@triton.jit
def _write_as(address, offsets, inside, x, dtype: tl.constexpr):
    tl.store(address.to(tl.pointer_type(dtype)) + offsets, x.to(dtype), mask=inside)


@triton.jit
def write_units(place, stride, ww, wd, turn_sq, here):
    """UNIT_SUMS, which follow each other."""
    tl.store(place, ww, mask=here)
    tl.store(place + stride, wd, mask=here)
    tl.store(place + 2 * stride, turn_sq, mask=here)


@triton.jit
def joined(ww, wd, turn_sq, w, d):
    """Units' sums, and those of more of their elements: see `metrics.turning`."""
    a, b = tl.sum(w * w, 1), tl.sum(w * d, 1)
    # A zero weight has slope 0 / tiny: all of its update is turn.
    slope = b / tl.maximum(a, TINY)
    turn = d - slope[:, None] * w
    both = ww + a
    differs = wd / tl.maximum(ww, TINY) - slope
    more = ww * (a / tl.maximum(both, TINY)) * differs * differs
    return both, wd + b, turn_sq + tl.sum(turn * turn, 1) + more


@triton.jit
def sum_all(x):
    """Sum of a matrix."""
    return tl.sum(tl.sum(x, 1), 0)


@triton.jit
def total(row, first, last, lanes: tl.constexpr):
    """Sum of some slots, in float64."""
    lane_sums = tl.zeros((lanes,), tl.float64)
    for begin in range(first, last, lanes):
        at = begin + tl.arange(0, lanes)
        lane_sums += tl.load(row + at, mask=at < last, other=0.0).to(tl.float64)
    return tl.sum(lane_sums, 0)


@triton.jit
def add_up(
    partial, slots, first, last, out, stride, which: tl.constexpr, lanes: tl.constexpr
):
    """Add up some slots of a sum, and store it in that sum's row of `out`."""
    tl.store(out + which * stride, total(partial + which * slots, first, last, lanes))


@triton.jit
def is_nonfinite(x):
    """1 where an entry is NaN or infinite: all bits of its exponent are set."""
    bits = x.to(tl.int32, bitcast=True) & 0x7F800000
    return (bits == 0x7F800000).to(tl.int32)
