"""What a Lightning callback does, under both names of Lightning."""

import os
from collections.abc import Mapping
from typing import Any

from dynoscope.hooks.held import Held, Scope

__all__ = ["LightningHooks"]

_SETTINGS = (
    "accumulate_grad_batches",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "max_epochs",
    "max_steps",
    "precision",
)


class LightningHooks:
    """Watches what a Lightning Trainer fits.

        Trainer(..., callbacks=[DynoscopeCallback(run="runs/gpt", every=10)])

    Steps are optimizer steps, with accumulation too; a GAN's several optimizers
    are in one run. What the module logs (`self.log`) is recorded at every step
    under the names that loggers get; what it logs in its own `on_train_batch_end`
    comes one step late. An exception closes the run as failed. A training that is
    fitted from a checkpoint goes on in the run that it was saved from, after the
    step of the checkpoint. The hyperparameters that module and datamodule save,
    and what the Trainer does to gradients, are in the run's `config`, with your own.

    Args:
        run: the run's folder; None makes one under `runs/` by date and model.
        **options: further arguments of `dynoscope.watch`.

    Raises:
        TypeError: an option that `dynoscope.watch` does not have.
    """

    def __init__(
        self, run: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        self._held = Held(run, options)
        self._place: dict[str, Any] = {}
        self._logged_step = -1
        self._names: dict[str, set[str]] = {}

    @property
    def scope(self) -> "Scope | None":
        """The open run's `Scope`, to log and to measure on demand; None if closed."""
        return self._held.scope

    def close(self, error: BaseException | None = None) -> None:
        """Close the run, if it is open.

        Args:
            error: what ended the training, if an error did.
        """
        self._place = self.state_dict()
        self._held.close(error)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the run's folder, and the steps taken."""
        scope = self.scope
        if scope is None:
            return self._place
        return {"run": str(scope.run), "step": scope.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint kept."""
        self._place = dict(state_dict)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the run."""
        self._names = {"step": set(), "epoch": set(), "validation": set()}
        place = self._place if trainer.global_step else {}
        start = place.get("step", trainer.global_step)
        optimizers = trainer.optimizers
        self._held.open(
            pl_module,
            optimizers[0] if len(optimizers) == 1 else optimizers,
            _config(trainer, pl_module),
            start=start,
            run=place.get("run"),
        )
        self._logged_step = start

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record what was logged at this step, if it was one."""
        if self.scope is not None and self.scope.step != self._logged_step:
            self._logged_step = self.scope.step
            self._log("step", trainer.logged_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what validation logged."""
        self._log("validation", trainer.logged_metrics)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Record what the last epoch logged, its very end included."""
        self._log("epoch", trainer.logged_metrics)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what the last epoch logged, and close the run."""
        self._log("epoch", trainer.logged_metrics)
        self.close()

    def on_exception(
        self, trainer: Any, pl_module: Any, exception: BaseException
    ) -> None:
        """Close the run as failed."""
        self.close(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Close the run, where a tuner ended the fit without a word."""
        self.close()

    def _log(self, when: str, metrics: Mapping[str, Any]) -> None:
        """Record what is new: Lightning keeps every metric's last value with it."""
        if self.scope is None:
            return
        others = (names for key, names in self._names.items() if key != when)
        known = set().union(*others)
        fresh = {name: metrics[name] for name in metrics.keys() - known}
        self._names[when] |= fresh.keys()
        self._held.log(fresh)


def _config(trainer: Any, module: Any) -> dict[str, Any]:
    saved = getattr(trainer.datamodule, "hparams", {})
    settings = {name: getattr(trainer, name) for name in _SETTINGS}
    return {"trainer": settings, **saved, **module.hparams}
