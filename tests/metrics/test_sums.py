"""The kernel against brute force, over shapes, dtypes and memory formats."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynoscope.measurement import Host, Sum
from dynoscope.metrics.sums import Kernel, SecondMoment, Spec
from dynoscope.metrics.sums.native import available
from tests.metrics.interpreter import interpret


@pytest.fixture(params=["native", "eager", "triton"], scope="module", autouse=True)
def kernel_in_use(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "triton":
            interpret(patch)
        else:
            patch.setenv("DYNOSCOPE_NATIVE", str(int(request.param == "native")))
            assert available() == (request.param == "native")
        with np.errstate(all="ignore"):  # the interpreter is NumPy
            yield


SHAPES = st.one_of(
    st.just(()),
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    st.sampled_from([(70, 90), (3, 20_000), (5000,), (600, 500), (16, 8, 3, 3)]),
)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])


def run(
    before: list[Tensor], after: list[Tensor], grads: list[Tensor | None],
    momenta: list[Tensor | None], *, rows: bool = True,
    seconds: list[SecondMoment | None] | None = None, limit: float = np.inf,
) -> Host:  # fmt: skip
    parameters = [torch.nn.Parameter(w.clone()) for w in before]
    kernel = Kernel(
        [Spec(p, rows=rows and p.dim() > 1, channels=p.dim() == 1) for p in parameters]
    )
    kernel.before(grads, momenta, [limit] * len(parameters))
    for parameter, w in zip(parameters, after, strict=True):
        parameter.data.copy_(w)
    kernel.after(grads, lambda: momenta, seconds or [None] * len(parameters))
    return kernel.ship()()


def wanted(
    w: Tensor, after: Tensor, g: Tensor, m: Tensor, second: SecondMoment, limit: float
) -> dict[Sum, float]:
    a, b, g, m, v = (x.double().flatten() for x in (w, after, g, m, second.v))
    d = b - a
    u = g / ((v / second.correction**2) ** 0.5 + second.eps)
    turn = d - (a @ d) / (a @ a) * a
    return {
        Sum.GRAD_SQ: float(g @ g),
        Sum.GRAD_ABS: float(g.abs().sum()),
        Sum.WEIGHT_GRAD: float(a @ g),
        Sum.MOMENTUM_SQ: float(m @ m),
        Sum.MOMENTUM_GRAD: float(m @ g),
        Sum.WEIGHT_SQ: float(a @ a),
        Sum.WEIGHT_UPDATE: float(a @ d),
        Sum.TURN_SQ: float(turn @ turn),
        Sum.GRAD_UPDATE: float(g @ d),
        Sum.MOVED: float((d != 0).sum()),
        Sum.NONFINITE: 0.0,
        Sum.WEIGHT_MAX: float(a.abs().max()),
        Sum.SCALED_GRAD_SQ: float(u @ u),
        Sum.WEIGHT_SCALED_GRAD: float(a @ u),
        Sum.OUTSIDE: float((a.abs() > limit).sum()),
        Sum.AT_EDGE: float((a.abs() >= 0.99 * limit).sum()),
    }


def scale(s: Sum, sums: dict[Sum, float], update_sq: float) -> float:
    """What an error is to be held against: signed sums may cancel to anything."""
    sizes = {
        Sum.WEIGHT_GRAD: sums[Sum.WEIGHT_SQ] * sums[Sum.GRAD_SQ],
        Sum.WEIGHT_SCALED_GRAD: sums[Sum.WEIGHT_SQ] * sums[Sum.SCALED_GRAD_SQ],
        Sum.MOMENTUM_GRAD: sums[Sum.MOMENTUM_SQ] * sums[Sum.GRAD_SQ],
        Sum.WEIGHT_UPDATE: sums[Sum.WEIGHT_SQ] * update_sq,
        Sum.GRAD_UPDATE: sums[Sum.GRAD_SQ] * update_sq,
        Sum.TURN_SQ: (sums[Sum.TURN_SQ] + 1e-8 * update_sq) ** 2,  # 3e-7 of its norm
    }
    return float(np.sqrt(sizes.get(s, sums[s] ** 2)))


@pytest.mark.parametrize("kernel_in_use", ["native", "eager"], indirect=True)
@settings(deadline=None, max_examples=60)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=6),
    dtype=DTYPES,
    seed=st.integers(0, 1000),
    rows=st.booleans(),
    limit=st.sampled_from([0.5, 1.7, 3.0, np.inf]),
    alike=st.booleans(),
)
def test_every_sum(
    shapes: list[tuple[int, ...]],
    dtype: torch.dtype,
    seed: int,
    rows: bool,
    limit: float,
    alike: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    before = [draw(s) for s in shapes]
    after = [w + (0.1 * draw(tuple(w.shape))).to(dtype) for w in before]
    grads, momenta = [draw(s) for s in shapes], [draw(s) for s in shapes]
    seconds = []
    for i, shape in enumerate(shapes):
        k = 0 if alike else i
        v = (draw(shape) ** 2 + 0.01).to(dtype)
        seconds.append(SecondMoment(v, 0.1 + k, 1e-8 * 10 ** (3 * k)))
    host = run(
        before, after, [*grads], [*momenta], rows=rows, seconds=[*seconds], limit=limit
    )
    for i in range(len(shapes)):
        sums = wanted(before[i], after[i], grads[i], momenta[i], seconds[i], limit)
        update = after[i].double() - before[i].double()
        for s, value in sums.items():
            size = scale(s, sums, float((update**2).sum()))
            assert host.sums[s, i] == pytest.approx(value, rel=1e-5, abs=1e-5 * size), s


@pytest.mark.parametrize("shape", [(32, 16, 3, 3), (160, 128, 3, 3)])
def test_memory_format_does_not_matter(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    before, update, grad, momentum = (torch.randn(shape) for _ in range(4))
    plain = run([before], [before + update], [grad], [momentum])
    last = torch.channels_last
    for formats in [(last, last), (last, torch.contiguous_format)]:
        other = run(
            [before.to(memory_format=formats[0])],
            [before + update],
            [grad.to(memory_format=formats[1])],
            [momentum.to(memory_format=formats[0])],
        )
        np.testing.assert_allclose(other.sums, plain.sums, rtol=1e-4)
        np.testing.assert_allclose(other.rows, plain.rows, rtol=1e-4, atol=1e-3)


def test_a_transposed_parameter() -> None:
    torch.manual_seed(0)
    before, update = torch.randn(300, 200).t(), torch.randn(200, 300)
    grad = torch.randn(200, 300)
    strided = run([before], [before + update], [grad], [None])
    plain = run([before.contiguous()], [before + update], [grad], [None])
    np.testing.assert_allclose(strided.sums, plain.sums, rtol=1e-4)
    np.testing.assert_allclose(strided.rows, plain.rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [20, 9000])
def test_nonfinite_entries_are_counted(size: int) -> None:
    before, after = torch.ones(size), torch.ones(size)
    grad, momentum = torch.ones(size), torch.ones(size)
    after[0], grad[1], grad[2], momentum[3] = (
        torch.nan,
        torch.inf,
        -torch.inf,
        torch.nan,
    )
    clean = torch.ones(3)
    host = run([before, clean], [after, clean], [grad, clean], [momentum, clean])
    assert host.sums[Sum.NONFINITE].tolist() == [4, 0]


def test_what_is_absent_sums_to_zero() -> None:
    before = [torch.ones(3), torch.ones(9000)]
    host = run(before, before, [None, None], [None, None])
    absent = [
        *(Sum.GRAD_SQ, Sum.GRAD_ABS, Sum.WEIGHT_GRAD, Sum.MOMENTUM_SQ, Sum.MOVED),
        *(Sum.SCALED_GRAD_SQ, Sum.WEIGHT_SCALED_GRAD),
    ]
    assert not host.sums[absent].any()


@pytest.mark.parametrize("size", [3, 40_000])
def test_a_weight_on_the_edge_is_not_outside(size: int) -> None:
    weight = torch.zeros(size)
    weight[:3] = torch.tensor([-3.0, 2.971, 2.969])  # 2.97 is where the edge begins
    host = run([weight] * 2, [weight] * 2, [None] * 2, [None] * 2, limit=3.0)
    assert host.sums[Sum.AT_EDGE].tolist() == [2, 2]
    assert host.sums[Sum.OUTSIDE].tolist() == [0, 0]


@pytest.mark.parametrize("size", [20, 40_000])
def test_a_second_moment_in_some_layers_only(size: int) -> None:
    weight, grad = torch.full((size,), 2.0), torch.full((size,), 3.0)
    second = SecondMoment(torch.full((size,), 0.25), torch.tensor(0.5), 0.5)
    host = run([weight] * 3, [weight] * 3, [grad, grad, None], [None] * 3,
               seconds=[second, None, None])  # fmt: skip
    assert host.sums[Sum.SCALED_GRAD_SQ].tolist() == [size * 4, 0, 0]
    assert host.sums[Sum.WEIGHT_SCALED_GRAD].tolist() == [size * 4, 0, 0]


def test_channels_come_in_the_order_of_the_layers() -> None:
    before = [
        torch.arange(4.0),
        torch.zeros(2, 2),
        10 + torch.arange(3.0),
        torch.ones(4),
    ]
    after = [w + 1 for w in before]
    grads: list[Tensor | None] = [-w for w in before]
    host = run(before, after, grads, [None] * 4)
    wanted_weights = torch.cat([before[0], before[2], before[3]]).numpy()
    gradient, weight, update = host.channels
    np.testing.assert_array_equal(weight, wanted_weights)
    np.testing.assert_array_equal(gradient, -wanted_weights)
    np.testing.assert_array_equal(update, np.ones(11))


def test_bfloat16_updates_that_round_away_are_unmoved() -> None:
    before = torch.ones(10_000, dtype=torch.bfloat16)
    after = before.clone()
    after[:7] += 0.5
    host = run([before], [after], [None], [None])
    assert host.sums[Sum.MOVED, 0] == 7
