"""Every optimizer of the package on the same task: does it learn, and how well?

python examples/optimizers.py [--seeds 3]

Prints the table of examples/README.md: the accuracy on held-out digits of a small
convolutional network with batch normalization, per optimizer and seed.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer

from dynoscope.demo import DigitsNet, digits
from dynoscope.optim import (
    Huber,
    Lion,
    LionK,
    Lp,
    NormGD,
    OrtSepNorm,
    Rotational,
    SepNorm,
    Threshold,
    TopK,
)

EPOCHS, BATCH, WARMUP = 20, 64, 50

Groups = list[dict[str, Any]]
OPTIMIZERS: dict[str, Callable[[Groups], Optimizer]] = {
    "AdamW(lr=3e-3, weight_decay=.1)": lambda g: AdamW(g, 3e-3, weight_decay=0.1),
    "Lion(lr=5e-4, weight_decay=.6)": lambda g: Lion(g, 5e-4, weight_decay=0.6),
    "LionK(Lp(1.5), lr=5e-3, weight_decay=.06)": lambda g: LionK(
        g, 5e-3, weight_decay=0.06, k=Lp(1.5)
    ),
    "LionK(Lp(1.5), lr=1e-2, weight_decay=.06, per='model')": lambda g: LionK(
        g, 1e-2, weight_decay=0.06, k=Lp(1.5), per="model"
    ),
    "LionK(Threshold(1e-4), lr=5e-4, weight_decay=.6)": lambda g: LionK(
        g, 5e-4, weight_decay=0.6, k=Threshold(1e-4)
    ),
    "LionK(TopK(10_000), lr=1e-3, weight_decay=.3, per='model')": lambda g: LionK(
        g, 1e-3, weight_decay=0.3, k=TopK(10_000), per="model"
    ),
    "LionK(Huber(1e-3), lr=1e-3, weight_decay=.3)": lambda g: LionK(
        g, 1e-3, weight_decay=0.3, k=Huber(1e-3)
    ),
    "NormGD(lr=.05, weight_decay=6e-3)": lambda g: NormGD(g, 0.05, weight_decay=6e-3),
    "SepNorm(lr=5e-4, weight_decay=.6)": lambda g: SepNorm(g, 5e-4, weight_decay=0.6),
    "SepNorm(lr=5e-4, weight_decay=.6, per='row')": lambda g: SepNorm(
        g, 5e-4, weight_decay=0.6, per="row"
    ),
    "SepNorm(lr=5e-4, weight_decay=.6, per='group')": lambda g: SepNorm(
        g, 5e-4, weight_decay=0.6, per="group"
    ),
    "OrtSepNorm(lr=5e-4, weight_decay=.1)": lambda g: OrtSepNorm(
        [g[0], {**g[1], "weight_decay": 0.1}], 5e-4, weight_decay=0.1
    ),
    "Rotational(AdamW(lr=3e-3, weight_decay=.1))": lambda g: Rotational(
        AdamW(g, 3e-3, weight_decay=0.1)
    ),
    "Rotational(Adam(lr=3e-3, weight_decay=.1))": lambda g: Rotational(
        Adam(g, 3e-3, weight_decay=0.1)
    ),
    "Rotational(Lion(lr=5e-4, weight_decay=.6))": lambda g: Rotational(
        Lion(g, 5e-4, weight_decay=0.6)
    ),
    "Rotational(SGD(lr=.1, momentum=.9, weight_decay=1e-3))": lambda g: Rotational(
        SGD(g, 0.1, momentum=0.9, weight_decay=1e-3)
    ),
}
"""How it is made, as the table says it, and the making."""


def groups_of(model: nn.Module) -> Groups:
    """Weights with decay; gains and biases without."""
    params = list(model.parameters())
    return [
        {"params": [p for p in params if p.ndim > 1]},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]


def accuracy(make: Callable[[Groups], Optimizer], seed: int) -> float:
    """Train with warmup and a cosine; accuracy on held-out digits, from 0 to 1."""
    images, labels, held_out, held_out_labels = digits()
    torch.manual_seed(seed)
    model = DigitsNet()
    optimizer = make(groups_of(model))
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARMUP, 1.0, WARMUP),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - WARMUP),
        ],
        [WARMUP],
    )
    for _ in range(steps):
        batch = torch.randint(len(images), (BATCH,))
        loss = functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        scores: Tensor = model(held_out)
    return float((scores.argmax(1) == held_out_labels).float().mean())


def main() -> None:
    """Print a Markdown table, a row an optimizer as soon as it is trained."""
    parser = argparse.ArgumentParser(description="The optimizers on digits.")
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    print("| optimizer |", *(f"seed {seed} |" for seed in seeds), "mean |")
    print("|---|", *("---:|" for _ in seeds), "---:|")
    for name, make in OPTIMIZERS.items():
        reached = [100 * accuracy(make, seed) for seed in seeds]
        columns = *reached, statistics.mean(reached)
        print(f"| `{name}` |", *(f"{each:.1f} |" for each in columns), flush=True)


if __name__ == "__main__":
    main()
