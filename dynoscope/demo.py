"""`dynoscope demo`: a real training, twice, watched; then what it showed, in words."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from dynoscope.dashboard import start
from dynoscope.diff import diff
from dynoscope.diff.text import print_diff
from dynoscope.errors import DynoscopeError
from dynoscope.optim import Lion
from dynoscope.reader import Run, open_run
from dynoscope.session import watch

__all__ = ["DigitsNet", "digits", "run_demo"]

STEPS: Final = 2000
BATCH: Final = 64
NOISE: Final = 0.3
WARMUP: Final = 100
DECAY: Final = 300
SCALE_FREE: Final = (
    "features.0.weight",
    "features.3.weight",
    "features.7.weight",
    "hidden.0.weight",
)
"""Layers in front of a BatchNorm: only their direction matters."""
PLATEAU: Final = (STEPS // 2, STEPS - DECAY)
"""Steps at full learning rate, after the initial weights are forgotten."""

# The same lr and weight decay for both, which is what people try first. Both then
# forget their initial weights at the same pace (half of the way to equilibrium in
# 385 steps), but a learning rate that suits AdamW is large for Lion.
OPTIMIZERS: Final[Mapping[str, Callable[..., torch.optim.Optimizer]]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.3),
    "lion": lambda p: Lion(p, lr=3e-3, weight_decay=0.3),
}


class DigitsNet(nn.Module):
    """Three convolutions with BatchNorm and ReLU, then a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(1, 16), *_conv(16, 32), nn.MaxPool2d(2), *_conv(32, 64)
        )
        self.hidden = nn.Sequential(
            nn.Linear(64, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU()
        )
        self.classifier = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, shape (batch, 10), of images of shape (batch, 1, 8, 8)."""
        pooled = self.features(images).mean(dim=(2, 3))
        scores: Tensor = self.classifier(self.hidden(pooled))
        return scores


def run_demo(runs: Path, *, host: str, port: int, serve: bool, browser: bool) -> None:
    """Train with AdamW, then with Lion; show the page meanwhile and sum up.

    Args:
        runs: folder for the two runs; those of an earlier demo are replaced.
        host: address for the dashboard.
        port: its port; 0 picks a free one.
        serve: whether to go on serving until Ctrl-C.
        browser: whether to open a browser.
    """
    console = Console()
    data = digits()
    server = start(runs, host=host, port=port, browser=browser)
    try:
        console.print(f"Dashboard: [bold]{server.url}[/bold]  (live while it trains)")
        with _progress(console) as progress:
            for name in OPTIMIZERS:
                _train(name, runs / name, data, progress)
        opened = [open_run(runs / name) for name in OPTIMIZERS]
        for run in opened:
            console.print(f"\n{_in_words(run)}", highlight=False)
        console.print()
        print_diff(diff(*opened), console=console)
        console.print(f"\nThe runs are in {runs}: ", *(run.name for run in opened))
        if serve:
            console.print(f"Still serving {server.url}, until Ctrl-C.")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
    finally:
        server.stop()


def _share_of_lr(step: int) -> float:
    """Warm up, hold (so that an equilibrium can be reached), decay."""
    return min((step + 1) / WARMUP, 1.0, (STEPS - step) / DECAY)


def _conv(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """8x8 images of handwritten digits: train images and labels, then held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DynoscopeError(
            "the demo trains on scikit-learn's digits: pip install 'dynoscope[demo]'"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    targets = torch.tensor(labels)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held_out, train = order[:360], order[360:]
    return images[train], targets[train], images[held_out], targets[held_out]


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    with Progress(
        TextColumn("{task.description:>6}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>4}/{task.total}"),
        TextColumn(
            "loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.1%}"
        ),
        TimeRemainingColumn(compact=True),
        console=console,
    ) as progress:
        yield progress


def _train(
    name: str, folder: Path, data: tuple[Tensor, ...], progress: Progress
) -> None:
    images, labels, *held_out = data
    torch.manual_seed(0)
    model = DigitsNet()
    optimizer = OPTIMIZERS[name](model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _share_of_lr)
    config = {"optimizer": name, "batch": BATCH, "steps": STEPS, "data": "digits"}
    task = progress.add_task(name, total=STEPS, loss=float("nan"), accuracy=0.0)
    with watch(
        model,
        optimizer,
        run=folder,
        every=1,  # a step takes milliseconds, and all of it is to be seen
        config=config,
        overwrite=True,
        quiet=True,
    ) as scope:
        for _ in range(STEPS):
            chosen = torch.randint(len(images), (BATCH,))
            loss = functional.cross_entropy(
                model(_distorted(images[chosen])), labels[chosen]
            )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            scope.log(loss=loss)
            if scope.step % 50 == 0:
                accuracy = _accuracy(model, *held_out)
                scope.log(accuracy=accuracy)
                progress.update(task, loss=loss.item(), accuracy=accuracy)
            progress.update(task, completed=scope.step)


def _distorted(images: Tensor) -> Tensor:
    """Images moved by up to a pixel, with noise: a task that stays hard."""
    down, right = torch.randint(-1, 2, (2,)).tolist()
    moved = images.roll((down, right), dims=(2, 3))
    return moved + NOISE * torch.randn_like(moved)


@torch.no_grad()
def _accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    share = (model(images).argmax(dim=1) == labels).float().mean()
    model.train()
    return float(share)


def _in_words(run: Run) -> str:
    """What a run showed: how well it learned, how it rotated, what died."""
    scalars = run.scalars(["loss", "accuracy"]).groupby("name")["value"]
    loss, accuracy = scalars.get_group("loss"), scalars.get_group("accuracy")
    optimizer = run.manifest["optimizer"]["name"]
    outcome = (
        f"[bold]{optimizer}[/bold] ended at loss {loss.tail(50).mean():.4f} with "
        f"{accuracy.iloc[-1]:.1%} of unseen digits right."
    )
    lines = [outcome, "Layers whose scale BatchNorm cancels turned, per step, by"]
    for layer in run.manifest["layers"]:
        if layer["name"] in SCALE_FREE:
            lines.append(_rotation_in_words(run, layer["name"]))
    return "\n".join([*lines, _channels_in_words(run)])


def _rotation_in_words(run: Run, layer: str) -> str:
    columns = ["angular_update", "pred_angular_update"]
    angle, predicted = run.layers(columns, layer, PLATEAU)[columns].mean()
    return (
        f"  {layer:<18} {angle * 1e3:5.2f} mrad, {predicted * 1e3:5.2f} predicted in "
        f"equilibrium ({angle / predicted - 1:+.0%})"
    )


def _channels_in_words(run: Run) -> str:
    counts = run.normalization().groupby("step").sum(numeric_only=True)
    last, sums = counts.iloc[-1], counts.sum()
    if not sums["dead"]:
        return f"None of its {last['channels']} BatchNorm channels died."
    return (
        f"Of its {last['channels']} BatchNorm channels {last['dead']} were dead at the "
        f"end, {counts['dead'].max()} at the worst. Along the fading momentum it moved "
        f"dead channels {sums['ghost']:,} times; {sums['revived']} came back to life "
        "after a long silence."
    )
