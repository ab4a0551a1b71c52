from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from dynoscope.errors import TheoryError
from dynoscope.optim import Lion, NormGD, OrtSepNorm, SepNorm
from dynoscope.theory import Hyperparameters, Integrator, equilibrium, trajectory
from tests.systems import Array, RandomWalk, Walk

STEPS = 2000
BETAS = {"betas": (0.9, 0.99)}


def schedule(peak: float) -> Array:
    """Warmup, then a cosine down to a twentieth."""
    t = np.arange(STEPS)
    cosine = 0.525 + 0.475 * np.cos(np.pi * (t - 200) / (STEPS - 200))
    return peak * np.where(t < 200, (t + 1) / 200, cosine)


def walk(
    make: Callable[[list[Tensor]], Optimizer], lr: Array, norm: float, even: bool
) -> Walk:
    system = RandomWalk(even=even)
    system.rescale(np.full(64, norm))

    class Scheduled:
        """The optimizer, told another lr at every step."""

        def __init__(self, params: list[Tensor]) -> None:
            self.inner, self.rates = make(params), iter(lr)

        def step(self) -> None:
            self.inner.param_groups[0]["lr"] = float(next(self.rates))
            self.inner.step()

    return system.run(Scheduled, STEPS)  # type: ignore[arg-type]


def error(predicted: Array, measured: Array) -> float:
    """Mean error over the steps, of root mean squares over the rows."""
    predicted = np.broadcast_to(predicted, measured.shape)
    ratio = (predicted**2).mean(axis=1) / (measured**2).mean(axis=1)
    return float(np.abs(np.sqrt(ratio) - 1).mean())


CASES: list[Any] = [
    ("adamw", AdamW, 1e-2, {"weight_decay": 0.5, **BETAS}, 3, None, 0.02, 0.25),
    ("lion", Lion, 1e-3, {"weight_decay": 5.0, **BETAS}, 3, None, 0.03, 0.25),
    ("lion", Lion, 1e-3, {"weight_decay": 5.0, **BETAS}, 3, "each", 0.02, 0.25),
    ("sepnorm", SepNorm, 1e-3, {"weight_decay": 5.0, **BETAS}, 3, None, 0.05, 0.25),
    ("sepnorm", SepNorm, 1e-3, {"weight_decay": 5.0, **BETAS}, 3, "each", 0.01, 0.25),
    ("ortsepnorm", OrtSepNorm, 1e-3, {"weight_decay": 5.0}, 3, None, 1e-4, 0.25),
    ("normgd", NormGD, 1e-2, {"weight_decay": 0.5, **BETAS}, 0.1, "each", 0.01, 1),
    ("sgdm", SGD, 0.2, {"weight_decay": 5e-3, "momentum": 0.9}, 3, "each", 0.01, 0.1),
    (
        "sgdm",
        partial(SGD, nesterov=True),
        0.2,
        {"weight_decay": 5e-3, "momentum": 0.9},
        3,
        "each",
        0.01,
        0.1,
    ),
    ("adam_l2", Adam, 1e-3, {"weight_decay": 1e-2, **BETAS}, 0.1, "mean", 0.02, 0.2),
]
"""Optimizer, peak lr, start norm, which gradients are known, and what the errors of
the trajectory must stay below and those of the equilibrium above."""


@pytest.mark.parametrize(
    ("optimizer", "make", "peak", "hyper", "start", "known", "bar", "static"), CASES
)
def test_random_walk_under_warmup_and_cosine(
    optimizer: str,
    make: Callable[..., Optimizer],
    peak: float,
    hyper: dict[str, Any],
    start: float,
    known: str | None,
    bar: float,
    static: float,
) -> None:
    lr = schedule(peak)
    rows = {"per": "row"} if make in (SepNorm, OrtSepNorm) else {}
    made = partial(make, lr=peak, **hyper, **rows)
    walked = walk(made, lr, start, even=optimizer == "adam_l2")
    grad_sq = walked.effective_grad_sq.mean(axis=0, keepdims=True)
    found = trajectory(
        optimizer,
        numel=64,
        start_weight_norm=walked.weight_norm[0],
        lr=lr,
        effective_grad_sq={
            None: None,
            "mean": grad_sq,
            "each": walked.effective_grad_sq,
        }[known],
        nesterov=isinstance(make, partial),
        **hyper,
    )
    still = equilibrium(
        optimizer, numel=64, lr=lr[:, None], effective_grad_sq=grad_sq, **hyper
    )
    assert error(found.weight_norm, walked.weight_norm) < bar
    assert error(found.angular_update, walked.angular_update) < bar + 0.02
    assert error(still.weight_norm, walked.weight_norm) > static


SGDM: dict[str, Any] = {"momentum": 0.9, "weight_decay": 1e-2}


class TestFrontDoor:
    def test_row_0_is_the_start(self) -> None:
        found = trajectory(
            "ortsepnorm", numel=4, start_weight_norm=2.0, lr=[0.1, 0.1], weight_decay=1
        )
        assert found.weight_norm.shape == found.angular_update.shape == (2,)
        after = np.hypot(0.9 * 2, 0.1 * 2)
        np.testing.assert_allclose(found.weight_norm, [2, after], rtol=1e-12)
        expected = np.arctan([0.2 / 1.8, 0.2 / (0.9 * after)])
        np.testing.assert_allclose(found.angular_update, expected, rtol=1e-12)

    @pytest.mark.parametrize("optimizer", ["adamw", "lion", "sgdm", "adam_l2"])
    def test_layers_together_are_layers_alone(self, optimizer: str) -> None:
        random = np.random.default_rng(0)
        grad_sq = random.uniform(1e-4, 1e-3, (50, 3))
        numel, start = np.array([4, 64, 256]), np.array([1.0, 2.0, 0.5])
        common: dict[str, Any] = {
            "lr": schedule(0.01)[:50],
            "betas": (0.9, 0.99),
            **SGDM,
        }
        together = trajectory(
            optimizer,
            numel=numel,
            start_weight_norm=start,
            effective_grad_sq=grad_sq,
            **common,
        )
        for i in range(3):
            alone = trajectory(
                optimizer,
                numel=numel[i],
                start_weight_norm=start[i],
                effective_grad_sq=grad_sq[:, i],
                **common,
            )
            for batched, single in zip(together, alone, strict=True):
                assert single.shape == (50,)
                np.testing.assert_allclose(batched[:, i], single, rtol=1e-12)

    @pytest.mark.parametrize("optimizer", ["adamw", "lion", "normgd"])
    def test_the_scale_of_the_gradients_cancels(self, optimizer: str) -> None:
        common: dict[str, Any] = {
            "lr": schedule(0.01)[:50],
            "weight_decay": 0.1,
            **BETAS,
        }
        found = [
            trajectory(
                optimizer,
                numel=64,
                start_weight_norm=1,
                effective_grad_sq=scale,
                **common,
            )
            for scale in (1e-12, 1.0, None)
        ]
        np.testing.assert_allclose(found[0], found[1], rtol=1e-9)
        np.testing.assert_array_equal(found[1], found[2])

    def test_without_lr_nothing_moves(self) -> None:
        found = trajectory(
            "sgdm",
            numel=1,
            start_weight_norm=2,
            lr=np.zeros(5),
            effective_grad_sq=1.0,
            **SGDM,
        )
        assert (found.weight_norm == 2).all()
        assert (found.angular_update == 0).all()

    @pytest.mark.parametrize(
        ("optimizer", "bad", "message"),
        [
            ("adagrad", {}, "no theory for optimizer 'adagrad'; known are 'adam_l2'"),
            ("adamw", {}, "'adamw' needs betas"),
            ("sgdm", {}, "'sgdm' needs effective_grad_sq"),
            ("normgd", {"numel": [1, 2], **BETAS}, "'normgd' needs effective_grad_sq"),
            ("ortsepnorm", {"lr": 0.1}, "no argument is a series"),
            ("ortsepnorm", {"lr": np.ones((1, 1, 1))}, "lr has 3 dimensions"),
            ("ortsepnorm", {"lr": [0.1, -0.1]}, "lr is -0.1"),
            ("ortsepnorm", {"start_weight_norm": 0}, "start_weight_norm is 0 but must"),
            (
                "ortsepnorm",
                {"numel": [1, 2], "start_weight_norm": [1, 1, 1]},
                r"shape \(3,\) does not broadcast to 2 layers",
            ),
        ],
    )
    def test_bad_values(
        self, optimizer: str, bad: dict[str, Any], message: str
    ) -> None:
        good: dict[str, Any] = {
            "numel": 1,
            "start_weight_norm": 1,
            "lr": [0.1, 0.1],
            "weight_decay": 0,
        }
        with pytest.raises(TheoryError, match=message):
            trajectory(optimizer, **(good | bad))


class TestIntegrator:
    HYPER: ClassVar[dict[str, Any]] = {"numel": [9, 64], "weight_decay": 0.5, **BETAS}

    def advance(
        self,
        integrator: Integrator,
        lr: Array,
        norm: Any,
        steps: Any = None,
        **more: Any,
    ) -> Array:
        hyper = Hyperparameters.checked(lr=lr[:, None], **(self.HYPER | more))
        norms = np.broadcast_to(norm, (len(lr), 2))
        return np.array(integrator.advance(hyper, norms, steps))

    @pytest.mark.parametrize("optimizer", ["adamw", "lion", "sepnorm"])
    def test_batches_are_one_run(self, optimizer: str) -> None:
        lr = schedule(1e-2)[:60]
        whole = self.advance(Integrator(optimizer), lr, [1.0, 2.0])
        pieces: list[Array] = []
        integrator = Integrator(optimizer)
        for part in np.split(lr, [1, 17, 50]):
            # only the first norm counts
            pieces.append(self.advance(integrator, part, [1.0, 2.0 + len(pieces)]))
        np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)

    def test_between_measured_steps_the_earlier_one_holds(self) -> None:
        steps = np.array([0, 1, 5, 25, 26])
        lr, grad_sq = schedule(1e-2)[steps], np.array([3.0, 1.0, 4.0, 1.0, 5.0])
        filled = np.repeat(np.arange(5), np.diff([*steps, 27]))
        found = self.advance(
            Integrator("adamw"), lr, 1.0, steps, effective_grad_sq=grad_sq[:, None]
        )
        every = self.advance(
            Integrator("adamw"),
            lr[filled],
            1.0,
            effective_grad_sq=grad_sq[filled, None],
        )
        np.testing.assert_array_equal(found, every[:, steps])

    def test_a_layer_starts_with_its_first_positive_norm_and_gradient(self) -> None:
        lr = schedule(1e-2)[:6]
        norm = np.ones((6, 2))
        norm[:2, 0] = [0, np.nan]
        grad_sq = np.ones((6, 2))
        grad_sq[:4, 1] = [np.nan, 0, np.nan, np.nan]
        found = self.advance(Integrator("adamw"), lr, norm, effective_grad_sq=grad_sq)
        assert np.isnan(found[:, :2, 0]).all()
        assert np.isnan(found[:, :4, 1]).all()
        for layer, first in ((0, 2), (1, 4)):
            late = self.advance(Integrator("adamw"), lr[first:], 1.0)
            np.testing.assert_array_equal(found[:, first:, layer], late[:, :, layer])

    def test_the_last_known_gradient_holds(self) -> None:
        lr = schedule(1e-2)[:4]
        holed, filled = ([2.0, 3.0, hole, 1.0] for hole in (np.nan, 3.0))
        found = [
            self.advance(
                Integrator("adamw"), lr, 1.0, effective_grad_sq=np.array(g)[:, None]
            )
            for g in (holed, filled)
        ]
        np.testing.assert_array_equal(found[0], found[1])

    @pytest.mark.parametrize("optimizer", ["adamw", "lion", "sepnorm", "ortsepnorm"])
    def test_a_settled_optimizer_is_picked_up_where_it_is(self, optimizer: str) -> None:
        lr = np.full(4000, 1e-2)
        whole = self.advance(Integrator(optimizer), lr, 1.0)
        late = self.advance(
            Integrator(optimizer, settled=True), lr[3000:], whole[0, 3000]
        )
        np.testing.assert_allclose(late, whole[:, 3000:], rtol=1e-5)
