import numpy as np
import pytest
import torch

from dynoscope.calculator.schedules import lr_schedule


def of_torch(warmup: int, steps: int, schedule: str) -> list[float]:
    """The same from torch's own schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    after: dict[str, torch.optim.lr_scheduler.LRScheduler] = {
        "constant": torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        "cosine": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup),
        "linear": torch.optim.lr_scheduler.LinearLR(
            optimizer, 1.0, 0.0, steps - warmup
        ),
    }
    rates = []
    scheduler = after[schedule]
    for _ in range(steps - warmup):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [0.2 * (step + 1) / warmup for step in range(warmup)] + rates


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_is_what_torch_does(warmup: int, schedule: str) -> None:
    found = lr_schedule(0.2, 40, warmup=warmup, schedule=schedule)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, of_torch(warmup, 40, schedule), atol=1e-12)
