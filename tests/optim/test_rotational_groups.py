"""Which parameters Rotational turns, and what it refuses."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Adam, AdamW, Optimizer

from dynoscope.optim import NormGD, Rotational
from tests.optim.layers import draw


class TestWhatTurns:
    def test_the_rest_gets_the_inner_step(self) -> None:
        def groups(params: list[Parameter]) -> list[dict[str, Any]]:
            vector, single, plain, out = params
            return [
                {"params": [vector, single]},
                {"params": [plain], "weight_decay": 0.0},
                {"params": [out], "rotational": False},
            ]

        def make() -> list[Parameter]:
            shapes = [(5,), (4, 1), (3, 4), (3, 4)]
            return [Parameter(draw(*shape)) for shape in shapes]

        ours, theirs = make(), make()
        inner = AdamW(groups(ours), lr=0.1, weight_decay=0.1)
        plain = AdamW(groups(theirs), lr=0.1, weight_decay=0.1)
        for optimizer, params in ((Rotational(inner), ours), (plain, theirs)):
            for step in range(3):
                for param in params:
                    param.grad = draw(*param.shape, seed=step)
                optimizer.step()
        for left, right in zip(ours, theirs, strict=True):
            assert torch.equal(left, right)

    def test_one_parameter_does_not_decide_for_its_group(self) -> None:
        vector, matrix = Parameter(draw(5)), Parameter(draw(3, 4))
        optimizer = Rotational(AdamW([vector, matrix], lr=0.1, weight_decay=0.1))
        for param in (vector, matrix):
            param.grad = draw(*param.shape, seed=1)
        norms = vector.norm().item(), matrix.norm().item()
        optimizer.step()
        assert vector.norm().item() != pytest.approx(norms[0], rel=1e-3)
        assert matrix.norm().item() == pytest.approx(norms[1])

    def test_a_flag_takes_vectors_in(self) -> None:
        vector = Parameter(draw(5))
        group = {"params": [vector], "rotational": True}
        optimizer = Rotational(AdamW([group], lr=0.1, weight_decay=0.1))
        norm = vector.norm().item()
        vector.grad = draw(5, seed=1)
        optimizer.step()
        assert vector.norm().item() == pytest.approx(norm)

    def test_rows_of_zeros_move_by_the_inner_update(self) -> None:
        start = draw(4, 8)
        start[2] = 0
        param, plain = Parameter(start.clone()), Parameter(start.clone())
        inner = AdamW([param], lr=0.1, weight_decay=0.1)
        reference = AdamW([plain], lr=0.1, weight_decay=0.1)
        for optimizer, each in ((Rotational(inner), param), (reference, plain)):
            for step in range(5):
                each.grad = draw(4, 8, seed=step + 1)
                optimizer.step()
        torch.testing.assert_close(param[2], plain[2])
        torch.testing.assert_close(param[0].norm(), start[0].norm())

    def test_missing_gradients_stand_still(self) -> None:
        params = [Parameter(draw(3, 4)), Parameter(draw(3, 4, seed=1))]
        optimizer = Rotational(AdamW(params, lr=0.1, weight_decay=0.1))
        before = params[0].detach().clone()
        params[1].grad = draw(3, 4, seed=2)
        optimizer.step()
        assert torch.equal(params[0], before)
        assert params[0] not in optimizer.state

    def test_a_failing_inner_step_leaves_the_weights(self) -> None:
        class Fails(AdamW):
            def step(self, closure: Any = None) -> Any:
                raise MemoryError

        param = Parameter(draw(3, 4))
        optimizer = Rotational(Fails([param], weight_decay=0.1), center=False)
        param.grad = draw(3, 4, seed=1)
        with pytest.raises(MemoryError):
            optimizer.step()
        assert torch.equal(param, draw(3, 4))


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"per": "column"}, "per must be one of 'row', 'tensor'"),
            ({"beta": 1.0}, r"beta must be in \[0, 1\), got 1.0"),
            ({"eta_r": -0.1}, "eta_r must be finite and >= 0, got -0.1"),
            ({"eta_r": math.nan}, "eta_r must be finite"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        inner = AdamW([Parameter(draw(3, 4))], weight_decay=0.1)
        with pytest.raises(ValueError, match=message):
            Rotational(inner, **options)

    @pytest.mark.parametrize(
        "inner",
        [
            lambda params: torch.optim.RMSprop(params, weight_decay=0.1),
            lambda params: AdamW(params, weight_decay=0.1, amsgrad=True),
            lambda params: NormGD(params, weight_decay=0.1),
        ],
    )
    def test_unknown_equilibrium(
        self, inner: Callable[[list[Parameter]], Optimizer]
    ) -> None:
        with pytest.raises(ValueError, match=r"equilibrium of .* unknown; give eta_r"):
            Rotational(inner([Parameter(draw(3, 4))]))

    def test_flag_without_weight_decay(self) -> None:
        group = {"params": [Parameter(draw(3, 4))], "rotational": True}
        with pytest.raises(ValueError, match=r"without weight decay.*give eta_r"):
            Rotational(AdamW([group], weight_decay=0.0))

    def test_16_bits_with_l2(self) -> None:
        param = Parameter(draw(3, 4, dtype=torch.bfloat16))
        with pytest.raises(ValueError, match=r"too few digits; use float32"):
            Rotational(Adam([param], weight_decay=0.1))

    def test_no_optimizer(self) -> None:
        param = Parameter(draw(3, 4))
        with pytest.raises(
            TypeError, match=r"wraps a torch.optim.Optimizer.* got list"
        ):
            Rotational([param])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not rotational itself"):
            Rotational(Rotational(AdamW([param], weight_decay=0.1)))

    def test_zeros_warn(self) -> None:
        param = Parameter(torch.zeros(3, 4))
        with pytest.warns(UserWarning, match=r"\(3, 4\) is all zeros"):
            Rotational(AdamW([param], weight_decay=0.1))

    def test_factor_of_another_shape(self) -> None:
        param = Parameter(draw(3, 4))
        optimizer = Rotational(
            AdamW([param], weight_decay=0.1), factor=lambda p: torch.ones(4)
        )
        param.grad = draw(3, 4, seed=1)
        before = param.detach().clone()
        with pytest.raises(ValueError, match=r"4 numbers .* shape \(3, 4\)"):
            optimizer.step()
        assert torch.equal(param, before)

    def test_function_gives_no_angle(self) -> None:
        param = Parameter(draw(3, 4))
        optimizer = Rotational(AdamW([param]), eta_r=lambda group: math.inf)
        param.grad = draw(3, 4, seed=1)
        with pytest.raises(ValueError, match="eta_r must be finite and >= 0, got inf"):
            optimizer.step()
