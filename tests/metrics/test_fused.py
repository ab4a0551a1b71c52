"""The kernels in Triton: what they sum, when they are used, and that they compile.

On a machine with a GPU they run on it, else in Triton's interpreter.
"""

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynoscope.measurement import Host, Sum
from dynoscope.metrics.sums import Kernel, SecondMoment, Spec, fused, guarded
from dynoscope.metrics.sums.native import SWITCH
from tests.metrics.interpreter import interpret
from tests.metrics.test_sums import scale, wanted

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")

SHAPES = st.one_of(
    st.tuples(st.sampled_from([1, 40, 8191, 8192, 8193, 20_000])),
    st.tuples(
        st.sampled_from([1, 3, 65]), st.sampled_from([1, 8, 9, 33, 130, 513, 2049])
    ),
    st.just((5, 3, 2, 2)),
)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@pytest.fixture(autouse=True, scope="module")
def on_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        if DEVICE.type == "cpu":
            interpret(patch)
        else:
            pytest.importorskip("triton")
        yield


class Step:
    """Random tensors of one step."""

    def __init__(
        self, shapes: list[tuple[int, ...]], dtype: torch.dtype, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(factor: float = 1.0) -> list[Tensor]:
            drawn = [torch.randn(s, generator=generator) for s in shapes]
            return [(factor * x).to(DEVICE, dtype) for x in drawn]

        self.before, self.grads, self.momenta = draw(), draw(), draw()
        pairs = zip(self.before, draw(0.1), strict=True)
        self.after = [(w + d).to(dtype) for w, d in pairs]
        self.seconds = [
            SecondMoment((v.float() ** 2 + 0.01).to(dtype), 0.1 + k, 1e-8)
            for k, v in enumerate(draw())
        ]

    def take(self, *, limit: float = 1.7, triton: bool = True) -> Host:
        with pytest.MonkeyPatch.context() as patch:
            if not triton:
                patch.setenv(SWITCH, "0")
            parameters = [torch.nn.Parameter(w.clone()) for w in self.before]
            specs = [
                Spec(p, rows=p.dim() > 1, channels=p.numel() == 40) for p in parameters
            ]
            assert guarded.is_supported(parameters[0]) == triton
            kernel = Kernel(specs)
        kernel.before(self.grads, self.momenta, [limit] * len(specs))
        for parameter, w in zip(parameters, self.after, strict=True):
            parameter.data.copy_(w)
        kernel.after(self.grads, lambda: self.momenta, self.seconds)
        return kernel.ship()()


@settings(deadline=None, max_examples=12)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=3),
    dtype=DTYPES,
    seed=st.integers(0, 1000),
    limit=st.sampled_from([0.5, 1.7, np.inf]),
)
def test_every_sum(
    shapes: list[tuple[int, ...]], dtype: torch.dtype, seed: int, limit: float
) -> None:
    step = Step(shapes, dtype, seed)
    host, eager = step.take(limit=limit), step.take(limit=limit, triton=False)
    tensors = (step.before, step.after, step.grads, step.momenta)
    for i in range(len(shapes)):
        w, after, g, m = (x[i].cpu() for x in tensors)
        second = step.seconds[i]._replace(v=step.seconds[i].v.cpu())
        sums = wanted(w, after, g, m, second, limit)
        update_sq = float(((after.double() - w.double()) ** 2).sum())
        for s, value in sums.items():
            bar = 1e-5 * scale(s, sums, update_sq)
            assert host.sums[s, i] == pytest.approx(value, rel=1e-5, abs=bar), s
            assert host.sums[s, i] == pytest.approx(
                eager.sums[s, i], rel=2e-5, abs=2 * bar
            ), s
    np.testing.assert_allclose(host.rows, eager.rows, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(host.channels, eager.channels)


def test_it_is_the_same_each_time() -> None:
    step = Step([(40_000,), (70, 90), (3, 5000)], torch.float32)
    first, second = step.take(), step.take()
    assert first.sums.tobytes() == second.sums.tobytes()
    assert first.rows.tobytes() == second.rows.tobytes()


@pytest.mark.parametrize("shape", [(30_000,), (2, 15_000)])
def test_chunks_that_shrink_by_different_factors_turn(shape: tuple[int, ...]) -> None:
    step = Step([shape], torch.float32)
    factors = torch.linspace(0.9, 1.0, step.before[0].numel()).reshape(shape)
    step.after = [step.before[0] * factors.to(DEVICE)]
    a, b = (x[0].double().cpu().reshape(-1) for x in (step.before, step.after))
    d = b - a
    turn = d - (a @ d) / (a @ a) * a
    assert step.take().sums[Sum.TURN_SQ, 0] == pytest.approx(
        float(turn @ turn), rel=1e-6
    )


def test_an_update_along_the_weight_does_not_turn_it() -> None:
    step = Step([(30_000,), (4, 7000)], torch.float32)
    step.after = [0.9 * w for w in step.before]
    sums = step.take().sums
    update_sq = 0.01 * sums[Sum.WEIGHT_SQ]
    assert (sums[Sum.TURN_SQ] < (1e-6**2) * update_sq).all()


def test_a_weight_of_zero_turns_by_all_of_its_update() -> None:
    step = Step([(9000,), (3, 700)], torch.float32)
    step.before = [torch.zeros_like(w) for w in step.before]
    wanted_sq = [float((w.double() ** 2).sum()) for w in step.after]
    assert step.take().sums[Sum.TURN_SQ] == pytest.approx(wanted_sq, rel=1e-6)


def test_nonfinite_entries_are_counted_where_they_are() -> None:
    step = Step([(9000,), (30, 40), (9000,)], torch.float32)
    step.grads[1][3, 4] = torch.inf
    step.momenta[1][5, 6] = torch.nan
    step.after[2][8000:8002] = torch.nan
    host = step.take()
    assert host.sums[Sum.NONFINITE].tolist() == [0, 2, 2]
    assert np.isfinite(host.sums[:, 0]).all()


def test_the_largest_weight_is_nan_if_one_is() -> None:
    step = Step([(30_000,), (9000,)], torch.float32)
    step.before[0][25_000], step.before[0][5] = torch.nan, torch.inf
    largest = step.take().sums[Sum.WEIGHT_MAX]
    assert np.isnan(largest[0])
    assert largest[1] == float(step.before[1].abs().max())


def test_gradients_that_come_inside_the_step() -> None:
    """Of the weights that were kept, whatever has become of them since."""
    step = Step([(9000,), (30, 40)], torch.bfloat16)
    parameters = [torch.nn.Parameter(w.clone()) for w in step.before]
    kernel = Kernel([Spec(p, rows=p.dim() > 1) for p in parameters])
    nothing: list[Tensor | None] = [None, None]
    kernel.before(nothing, step.momenta, [1.7] * 2)
    for parameter, w in zip(parameters, step.after, strict=True):
        parameter.data.copy_(w)
    kernel.before(step.grads, step.momenta, [1.7] * 2, again=True)
    kernel.after(step.grads, lambda: step.momenta, step.seconds)
    assert kernel.ship()().sums.tobytes() == step.take().sums.tobytes()


def test_a_bias_correction_that_is_counted_on_the_device() -> None:
    step = Step([(9000,), (30, 40)], torch.float32)
    plain = step.take()
    step.seconds = [
        each._replace(correction=torch.tensor(each.correction, device=DEVICE))
        for each in step.seconds
    ]
    assert step.take().sums.tobytes() == plain.sums.tobytes()


def test_two_optimizers_step_in_any_order() -> None:
    step = Step([(9000,), (30, 40)], torch.float32)
    parameters = [torch.nn.Parameter(w.clone()) for w in step.before]
    kernel = Kernel(
        [Spec(p, rows=p.dim() > 1, part=k) for k, p in enumerate(parameters)]
    )
    for name in ("before", "after"):
        for k in (1, 0):
            grads, momenta = [step.grads[k]], [step.momenta[k]]
            if name == "before":
                kernel.before(grads, momenta, [1.7], k)
                parameters[k].data.copy_(step.after[k])
            else:
                later: Callable[[], list[Tensor]] = functools.partial(list, momenta)
                kernel.after(grads, later, [step.seconds[k]], k)
    assert kernel.ship()().sums.tobytes() == step.take().sums.tobytes()


class Broken(Exception):
    """What a driver might say."""


@pytest.mark.parametrize("where", ["before", "after", "count"])
def test_torch_takes_over_where_they_fail(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Broken("no kernel image")

    step = Step([(9000,), (30, 40), (40,)], torch.float32)
    step.grads[1][3, 4] = torch.nan  # else there is nothing to count
    eager = step.take(triton=False)
    parameters = [torch.nn.Parameter(w.clone()) for w in step.before]
    specs = [Spec(p, rows=p.dim() > 1, channels=p.dim() == 1) for p in parameters]
    kernel = Kernel(specs[1:])
    monkeypatch.setattr(fused.Fused, where, fail)
    grads, momenta, seconds = step.grads[1:], step.momenta[1:], step.seconds[1:]

    def measure() -> Host:
        for parameter, w in zip(parameters, step.before, strict=True):
            parameter.data.copy_(w)
        kernel.before(grads, momenta, [1.7] * 2)
        for parameter, w in zip(parameters, step.after, strict=True):
            parameter.data.copy_(w)
        kernel.after(grads, lambda: momenta, seconds)
        return kernel.ship()()

    with caplog.at_level(logging.WARNING, "dynoscope"):
        if where != "before":  # what was kept of the weights is lost
            with pytest.raises(Broken):
                measure()
            kernel.ship()
        for _ in range(2):
            np.testing.assert_allclose(measure().sums, eager.sums[:, 1:], rtol=1e-5)
    (said,) = caplog.records
    assert "no kernel image" in said.getMessage()


def test_kernels_that_disagree_with_torch_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = fused.Fused.after

    def wrong(block: fused.Fused, *args: object) -> None:
        taken(block, *args)  # type: ignore[arg-type]
        block.sums[Sum.MOVED, 2] += 4

    monkeypatch.setattr(fused.Fused, "after", wrong)
    guarded._works.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "dynoscope"):
            assert not guarded.is_supported(torch.ones(4, device=DEVICE))
            assert not guarded.is_supported(torch.ones(5, device=DEVICE))
        (said,) = caplog.records
        assert "sums" in said.getMessage()
    finally:
        guarded._works.cache_clear()
    monkeypatch.undo()


def test_what_they_are_not_for() -> None:
    assert not guarded.is_supported(torch.ones(4, dtype=torch.float64, device=DEVICE))
    assert not guarded.is_supported(torch.ones(4, 4, device=DEVICE).t()[:2])
    assert not guarded.is_supported(torch.ones(0, device=DEVICE))
    assert not guarded.is_supported(torch.ones(4, device="meta"))


WITHOUT = """
import sys
sys.modules["triton"] = None
import torch
from dynoscope.metrics.sums import guarded
guarded.DEVICES.append("cpu")
print(guarded.is_supported(torch.ones(4)))
"""

COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from dynoscope.metrics.sums import triton_kernels
from dynoscope.metrics.sums.chunks import LANES, WIDTHS
from dynoscope.metrics.sums.fused import SLOTS, WARPS

FLOATS = {"limits", "divisors", "partial", "rows", "channels", "sums"}
NUMBERS = {"slots", "row_stride", "channel_stride", "stride"}


def build(name, **constants):
    function = getattr(triton_kernels, name)
    kinds = {
        **{name: "*i64" for name in function.arg_names},
        **dict.fromkeys(FLOATS, "*fp32"),
        **dict.fromkeys(NUMBERS, "i32"),
        "dirty": "*i32",
        **dict.fromkeys(constants, "constexpr"),
    }
    kinds = {name: kinds[name] for name in function.arg_names}
    source = ASTSource(fn=function, signature=kinds, constexprs=constants)
    compiled = compile(source, target=GPUTarget("cuda", 80, 32),
                       options={"num_warps": WARPS})
    print(name, len(compiled.asm["cubin"]) > 0)


build("before", lanes=LANES)
for width in WIDTHS:
    build("after", units=LANES // width, width=width)
build("gather", lanes=SLOTS)
build("count", lanes=LANES)
"""


def run_fresh(code: str, **environment: str) -> str:
    """What a fresh process prints."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRITON_INTERPRET": "0", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_without_triton_torch_takes_the_sums() -> None:
    assert run_fresh(WITHOUT).strip() == "False"


def test_they_compile_for_a_gpu(tmp_path: Path) -> None:
    printed = run_fresh(COMPILED, TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    assert len(printed) == 8
    assert all(line.endswith("True") for line in printed)
