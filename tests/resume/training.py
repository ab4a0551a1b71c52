"""A training with a checkpoint, as a whole or from there; FOLDER: one for ever."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

import dynoscope
from tests.networks import OPTIMIZERS, Digits, MixedNet, mixed_loss

STEPS: Final = 70
SAVED: Final = 30
"""Step at which there is a checkpoint."""
DIES: Final = 5
"""Step at which a channel of the BatchNorm dies for good."""


class Training:
    """A model, an optimizer and a schedule, all that a checkpoint holds."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(3)
        self.model = MixedNet()
        self.optimizer = OPTIMIZERS[name](self.model)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, STEPS
        )
        self.data = Digits()
        self.step = 0

    def save(self) -> bytes:
        buffer = io.BytesIO()
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random": torch.get_rng_state(),
                "step": self.step,
            },
            buffer,
        )
        return buffer.getvalue()

    @classmethod
    def load(cls, name: str, checkpoint: bytes) -> "Training":
        training = cls(name)
        state = torch.load(io.BytesIO(checkpoint))
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        training.step = state["step"]
        return training

    def run(
        self,
        until: int,
        scope: dynoscope.Scope | None = None,
        each: Callable[[], object] = lambda: None,
    ) -> None:
        """Train on; `each` is called after every step."""
        while self.step < until:
            if self.step == DIES:
                with torch.no_grad():
                    self.model.get_parameter("stem.1.bias")[2] = -50.0
            loss = mixed_loss(self.model, self.data)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()
            self.step += 1
            if scope is not None:
                scope.log(loss=loss)
            each()


def watched(training: Training, run: Path, **options: Any) -> Any:
    options = {"every": 1, "quiet": True, "strict": True, **options}
    return dynoscope.watch(training.model, training.optimizer, run=run, **options)


def main(folder: Path) -> None:
    """Train until killed, with a checkpoint on the way."""
    torch.set_num_threads(1)
    training = Training("adamw")

    def each() -> None:
        if training.step == SAVED:
            (folder / "checkpoint").write_bytes(training.save())

    with watched(training, folder / "run") as scope:
        training.run(1_000_000, scope, each)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
