"""The same loops, run by frameworks, with the callbacks that watch them."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from dynoscope.hooks.lightning import DynoscopeCallback as LightningWatch
from dynoscope.hooks.transformers import DynoscopeCallback as TrainerWatch
from tests.conformance.loops import Plain
from tests.conformance.training import Net, Training, digits, loss_of

with warnings.catch_warnings():  # the library's own, as it is imported
    warnings.simplefilter("ignore")
    import lightning

__all__ = ["FRAMEWORKS"]


class Accelerated(Plain):
    """What `accelerator.prepare` gives, as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.accelerator = Accelerator(cpu=True)
        prepared = self.accelerator.prepare(self.models, self.optimizers)
        self.models, self.optimizers = prepared

    def step(self) -> None:
        self.optimizers.zero_grad()
        self.accelerator.backward(loss_of(self.models))
        self.note()
        self.optimizers.step()

    def optimizers_inside(self) -> list[torch.optim.Optimizer]:
        return [self.optimizers.optimizer]


class Framework(Training):
    """A loop that is not ours: its optimizer is made when it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.models: Any = Net()
        self.optimizers: Any = []
        self.callbacks: list[Any] = []

    def step(self) -> None:
        raise NotImplementedError("the framework has the loop")

    @contextlib.contextmanager
    def watch(self, run: Path, **options: Any) -> Iterator[None]:
        callback = self.callback(run, **options)
        with contextlib.ExitStack() as stack:
            if hasattr(callback, "__exit__"):
                stack.enter_context(callback)
            self.callbacks = [callback]
            try:
                yield
            finally:
                self.callbacks = []

    def callback(self, run: Path, **options: Any) -> Any:
        raise NotImplementedError


class WithLoss(nn.Module):
    """A network that gives its loss, as a Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hints = torch.randint(10, labels.shape)
        scores = self.net(images, hints)
        return {"loss": functional.cross_entropy(scores, labels), "logits": scores}


class Digits(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"images": digits.images[index], "labels": digits.labels[index]}


class Noting(TrainerCallback):
    def __init__(self, training: "Transformers") -> None:
        self.training = training

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.training.optimizers = kwargs["optimizer"].optimizer

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.training.note()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.training.interrupt()


class Transformers(Framework):
    def __init__(self) -> None:
        super().__init__()
        self.models = WithLoss()

    def callback(self, run: Path, **options: Any) -> TrainerWatch:
        return TrainerWatch(run=run, **options)

    def run(self, steps: int) -> None:
        arguments = TrainingArguments(
            "unused",
            max_steps=steps,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            weight_decay=0.1,
            max_grad_norm=0.5,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            logging_strategy="no",
        )
        trainer = Trainer(
            self.models,
            arguments,
            train_dataset=Digits(),
            callbacks=[Noting(self), *self.callbacks],
        )
        trainer.train()


class Module(lightning.LightningModule):
    def __init__(self, training: "Lightning") -> None:
        super().__init__()
        self.net = training.models
        self.note: list[Callable[[], None]] = [training.note]

    def training_step(self, batch: Any, index: int) -> Tensor:
        images, labels = batch
        hints = torch.randint(10, labels.shape)
        return functional.cross_entropy(self.net(images, hints), labels)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.note[0]()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=0.1)


class Ending(lightning.Callback):
    def __init__(self, training: "Lightning") -> None:
        self.training = training

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.training.optimizers = trainer.optimizers[0]

    def on_train_batch_end(self, *args: Any) -> None:
        self.training.interrupt()


class Lightning(Framework):
    def callback(self, run: Path, **options: Any) -> LightningWatch:
        return LightningWatch(run=run, **options)

    @property
    def named(self) -> Mapping[str, Tensor]:
        return {f"net.{n}": p for n, p in self.models.named_parameters()}

    def run(self, steps: int) -> None:
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Ending(self), *self.callbacks],
        )
        data = TensorDataset(digits.images[:96], digits.labels[:96])
        trainer.fit(Module(self), DataLoader(data, batch_size=16))


FRAMEWORKS: Final[Mapping[str, Callable[[], Training]]] = {
    "accelerate": Accelerated,
    "transformers": Transformers,
    "lightning": Lightning,
}
"""By the name that the matrix has; each gives a fresh training."""
