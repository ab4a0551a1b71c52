from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import Optimizer

import dynoscope.theory
from dynoscope.errors import TheoryError
from dynoscope.optim import Lion, OrtSepNorm, SepNorm
from dynoscope.theory import Equilibrium, equilibrium
from tests.systems import RandomWalk

OPTIMIZERS = [
    "adam_l2", "adamw", "lion", "normgd", "ortsepnorm", "sepnorm", "sgdm"
]  # fmt: skip
COMPLETE: dict[str, Any] = {
    "betas": (0.9, 0.99),
    "momentum": 0.9,
    "effective_grad_sq": 1e-3,
}


class TestFrontDoor:
    def test_public_names_are_all(self) -> None:
        names = dynoscope.theory.__all__
        assert names == sorted(names)
        assert all(hasattr(dynoscope.theory, name) for name in names)

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_arrays_give_what_scalars_give(self, optimizer: str) -> None:
        numel, lr, decay = [64, 256, 9], [1e-3, 1e-2, 0.1], [0.5, 1e-2, 1e-3]
        together = equilibrium(
            optimizer, numel=numel, lr=lr, weight_decay=decay, **COMPLETE
        )
        for i in range(3):
            alone = equilibrium(
                optimizer, numel=numel[i], lr=lr[i], weight_decay=decay[i], **COMPLETE
            )
            for batched, single in zip(together, alone, strict=True):
                assert batched.dtype == single.dtype == np.float64
                assert batched.shape == (3,)
                assert single.shape == ()
                assert batched[i] == pytest.approx(float(single), rel=1e-14)

    def test_every_field_has_the_full_shape_and_can_be_written(self) -> None:
        found = equilibrium(
            "lion", numel=[1, 2], lr=[[1e-3], [1e-4]], weight_decay=1, betas=(0.9, 0.99)
        )
        for field in found:
            assert field.shape == (2, 2)
            field[0, 0] = 0.0
            assert np.count_nonzero(field) == 3

    def test_unknown_optimizer_names_the_known(self) -> None:
        with pytest.raises(TheoryError, match=", ".join(f"'{o}'" for o in OPTIMIZERS)):
            equilibrium("adagrad", numel=1, lr=0.1, weight_decay=0)

    @pytest.mark.parametrize(
        "optimizer", ["adam_l2", "adamw", "lion", "normgd", "sepnorm"]
    )
    def test_missing_betas(self, optimizer: str) -> None:
        with pytest.raises(TheoryError, match=f"'{optimizer}' needs betas"):
            equilibrium(
                optimizer, numel=1, lr=0.1, weight_decay=0, effective_grad_sq=1.0
            )

    @pytest.mark.parametrize("optimizer", ["adam_l2", "sgdm"])
    def test_missing_effective_gradient(self, optimizer: str) -> None:
        with pytest.raises(TheoryError, match=f"'{optimizer}' needs effective_grad_sq"):
            equilibrium(optimizer, numel=1, lr=0.1, weight_decay=0, betas=(0.9, 0.99))

    def test_momentum_is_none_if_not_given(self) -> None:
        arguments: dict[str, Any] = {
            "numel": 64,
            "lr": 0.1,
            "weight_decay": 1e-3,
            "effective_grad_sq": 1.0,
        }
        assert equilibrium("sgdm", **arguments) == (
            equilibrium("sgdm", momentum=0.0, **arguments)
        )


class TestEdges:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_without_weight_decay_there_is_no_equilibrium(self, optimizer: str) -> None:
        found = equilibrium(optimizer, numel=64, lr=1e-3, weight_decay=0, **COMPLETE)
        assert found.weight_norm == np.inf
        assert found.angular_update == 0
        assert found.half_life == np.inf
        assert np.isfinite(found.update_rms)

    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_without_lr_nothing_moves(
        self, optimizer: str, weight_decay: float
    ) -> None:
        found = equilibrium(
            optimizer, numel=64, lr=0, weight_decay=weight_decay, **COMPLETE
        )
        assert np.isnan(found.weight_norm)
        assert found.angular_update == 0
        assert found.update_rms == 0
        assert found.half_life == np.inf

    @pytest.mark.parametrize("optimizer", ["adam_l2", "sgdm"])
    def test_unknown_gradients_spoil_only_their_own_entries(
        self, optimizer: str
    ) -> None:
        given = {**COMPLETE, "effective_grad_sq": [1e-3, np.nan]}
        found = equilibrium(optimizer, numel=64, lr=1e-3, weight_decay=0.1, **given)
        assert np.isfinite(np.array(found)[:, 0]).all()
        assert np.isnan(found.weight_norm[1])
        assert np.isnan(found.update_rms[1])

    @given(
        st.sampled_from(OPTIMIZERS),
        st.integers(1, 10**9),
        st.floats(0, 1e3),
        st.floats(0, 0.999),
        st.tuples(st.floats(0, 0.9999), st.floats(0, 0.9999)),
        st.floats(0, 0.999),
        st.booleans(),
        st.floats(0, 1e6),
    )
    def test_whatever_is_allowed_gives_numbers(
        self,
        optimizer: str,
        numel: int,
        lr: float,
        decay: float,
        betas: tuple[float, float],
        momentum: float,
        nesterov: bool,
        grad_sq: float,
    ) -> None:
        found = equilibrium(
            optimizer,
            numel=numel,
            lr=lr,
            weight_decay=decay / max(lr, 1),
            betas=betas,
            momentum=momentum,
            nesterov=nesterov,
            effective_grad_sq=grad_sq,
        )
        assert (found.weight_norm >= 0) | (lr == 0)
        assert 0 <= found.angular_update <= np.pi
        assert found.update_rms >= 0
        assert found.half_life > 0


def ratios(
    optimizer: str,
    make: Callable[[list[Tensor]], Optimizer],
    hyper: dict[str, Any],
    *,
    even: bool = False,
) -> tuple[float, float]:
    """Measured / predicted norm and angle in a random walk, means over its rows.

    The walk starts at the prediction. Equilibrium is a balance of mean squares, so
    what is measured is a root mean square over the steps.
    """
    system = RandomWalk(even=even)

    def predict(effective_grad_sq: Any) -> Equilibrium:
        return equilibrium(
            optimizer,
            numel=system.numel,
            effective_grad_sq=effective_grad_sq,
            **hyper,
        )

    system.rescale(predict(system.effective_grad_sq()).weight_norm)
    walk = system.run(make).settled()
    predicted = predict(walk.effective_grad_sq.mean(axis=0))
    norm = np.sqrt((walk.weight_norm**2).mean(axis=0)) / predicted.weight_norm
    angle = np.sqrt((walk.angular_update**2).mean(axis=0)) / predicted.angular_update
    return float(norm.mean()), float(angle.mean())


class TestRandomWalk:
    """Real optimizers against their predictions, to published tolerances."""

    @pytest.mark.parametrize("dampening", [0.0, 0.5])
    def test_sgdm(self, dampening: float) -> None:
        hyper: dict[str, Any] = {
            "lr": 0.5,
            "weight_decay": 5e-3,
            "momentum": 0.9,
            "dampening": dampening,
        }
        found = ratios("sgdm", partial(torch.optim.SGD, **hyper), hyper)
        assert found == pytest.approx((1, 1), abs=0.02)

    @pytest.mark.parametrize("momentum", [0.5, 0.9])
    def test_nesterov(self, momentum: float) -> None:
        hyper: dict[str, Any] = {
            "lr": 5 * (1 - momentum),
            "weight_decay": 5e-3,
            "momentum": momentum,
            "nesterov": True,
        }
        found = ratios("sgdm", partial(torch.optim.SGD, **hyper), hyper)
        assert found == pytest.approx((1, 1), abs=0.02)

    def test_adamw(self) -> None:
        hyper: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.5, "betas": (0.9, 0.99)}
        make = partial(torch.optim.AdamW, **hyper)
        assert ratios("adamw", make, hyper) == pytest.approx((1, 1), abs=0.02)

    def test_lion(self) -> None:
        hyper: dict[str, Any] = {"lr": 1e-3, "weight_decay": 5.0, "betas": (0.9, 0.99)}
        make = partial(Lion, **hyper)
        assert ratios("lion", make, hyper) == pytest.approx((1, 1), abs=0.05)

    @pytest.mark.parametrize(
        ("make", "betas", "tolerance"),
        [
            (SepNorm, (0.0, 0.0), 1e-3),
            (SepNorm, (0.9, 0.99), 0.06),
            (OrtSepNorm, (0.9, 0.99), 1e-3),
        ],
    )
    def test_blocks_of_a_fixed_step(
        self,
        make: Callable[..., SepNorm | OrtSepNorm],
        betas: tuple[float, float],
        tolerance: float,
    ) -> None:
        hyper: dict[str, Any] = {"lr": 1e-3, "weight_decay": 5.0, "betas": betas}
        found = ratios(make.__name__.lower(), partial(make, per="row", **hyper), hyper)
        assert found == pytest.approx((1, 1), abs=tolerance)

    @pytest.mark.parametrize("weight_decay", [1e-2, 1e-1])
    def test_adam_l2_with_an_even_second_moment(self, weight_decay: float) -> None:
        hyper: dict[str, Any] = {
            "lr": 1e-3,
            "weight_decay": weight_decay,
            "betas": (0.9, 0.99),
        }
        make = partial(torch.optim.Adam, **hyper)
        found = ratios("adam_l2", make, hyper, even=True)
        assert found == pytest.approx((1, 1), abs=0.01)

    def test_update_rms_is_the_gradient_part_of_a_step(self) -> None:
        """Measured on AdamW as the step less its decay."""
        lr, weight_decay = 1e-2, 0.5
        system = RandomWalk()
        predicted = equilibrium(
            "adamw",
            numel=system.numel,
            lr=lr,
            weight_decay=weight_decay,
            betas=(0.9, 0.99),
        )
        system.rescale(np.full(64, predicted.weight_norm))
        optimizer = torch.optim.AdamW(
            [system.weight], lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99)
        )
        squares = []
        for _ in range(1500):
            system.draw_gradient()
            decayed = system.weight.detach() * (1 - lr * weight_decay)
            optimizer.step()
            update = system.weight.detach() - decayed
            squares.append(float(update.square().sum(dim=1).mean()))
        measured = np.sqrt(np.mean(squares[500:]))
        assert measured == pytest.approx(float(predicted.update_rms), rel=0.02)

    def test_adam_l2_relaxes_with_the_predicted_half_life(self) -> None:
        hyper: dict[str, Any] = {"lr": 1e-3, "weight_decay": 1e-2, "betas": (0.9, 0.99)}
        system = RandomWalk(even=True)
        predicted = equilibrium(
            "adam_l2",
            numel=system.numel,
            effective_grad_sq=system.effective_grad_sq(),
            **hyper,
        )
        system.rescale(predicted.weight_norm * 1.3**0.5)
        walk = system.run(partial(torch.optim.Adam, **hyper), steps=800)
        excess = (walk.weight_norm / predicted.weight_norm) ** 2 - 1
        halved = np.argmax(excess.mean(axis=1) < 0.15)
        assert halved == pytest.approx(predicted.half_life.mean(), rel=0.1)
