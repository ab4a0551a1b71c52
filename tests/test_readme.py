"""The README's snippets for frameworks run as they stand."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments

import dynoscope
from tests.hooks.test_transformers import Tokens, bert

README = (Path(__file__).parents[1] / "README.md").read_text()
SECTION = re.findall(r"^## With your framework$(.*?)^## ", README, re.M | re.S)[0]
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", SECTION, re.M | re.S)


class Module(lightning.LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss: torch.Tensor = self.model(batch[0]).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def plain() -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    return {
        "dynoscope": dynoscope,
        "torch": torch,
        "device": "cpu",
        "accumulate": 2,
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-2),
        "criterion": nn.CrossEntropyLoss(),
        "loader": DataLoader(
            TensorDataset(torch.randn(64, 4), torch.randint(2, (64,))), 8
        ),
    }


def transformers() -> dict[str, Any]:
    args = TrainingArguments(
        "out", max_steps=3, use_cpu=True, report_to=[], dataloader_pin_memory=False
    )
    return {"model": bert(), "args": args, "dataset": Tokens(), "Trainer": Trainer}


def for_lightning() -> dict[str, Any]:
    made = plain()
    return {
        "lightning": lightning,
        "module": Module(made["model"]),
        "loader": made["loader"],
    }


def accelerate() -> dict[str, Any]:
    made = plain()

    def train(model: Any, optimizer: Any, accelerator: Accelerator) -> None:
        for x, y in made["loader"]:
            loss = made["criterion"](model(x), y)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            accelerator.log({"loss": loss.item()})

    return {**made, "train": train, "Accelerator": Accelerator}


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # accelerators of one process share it


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own imports
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:The .*dataloader' does not have many:UserWarning")
@pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning")
@pytest.mark.filterwarnings("ignore:.*tensorboardX. has been removed:UserWarning")
@pytest.mark.parametrize(
    ("marker", "given", "logged"),
    [
        ("torch.compile", plain, "norm_before_clipping"),
        ("hooks.transformers", transformers, "train_loss"),
        ("hooks.lightning", for_lightning, "loss"),
        ("hooks.accelerate", accelerate, "loss"),
    ],
)
def test_the_snippet_runs_and_records(
    marker: str, given: Callable[[], dict[str, Any]], logged: str
) -> None:
    (snippet,) = (code for code in SNIPPETS if marker in code)
    # compiled, but by no compiler: that would take a minute
    with torch.compiler.set_stance("force_eager"):
        exec(compile(snippet, "README.md", "exec"), given())
    (run,) = dynoscope.find_runs("runs")
    assert run.status == "finished"
    assert run.last_step in (0, 3, 10)
    assert run.layers("grad_l2", "*")["grad_l2"].gt(0).all()
    assert logged in set(run.scalars()["name"])


def test_every_snippet_is_run() -> None:
    assert len(SNIPPETS) == 4
