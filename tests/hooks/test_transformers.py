"""The callback in real Trainers: numbers, checkpoints, and how trainings end."""

import copy
import gc
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import dynoscope
from dynoscope.hooks.transformers import DynoscopeCallback
from tests.hooks.snapshots import Snapshots, bits, hooks_of, scalar


class Tokens(Dataset[dict[str, Tensor]]):
    """Sequences whose label is whether their first token is a large one."""

    def __init__(self, count: int = 48) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(40, (count, 6), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = self.tokens[index]
        return {"input_ids": tokens, "labels": (tokens[0] > 20).long()}


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=6,
    )
    return BertForSequenceClassification(config)


def trainer(
    folder: Path, *callbacks: TrainerCallback, kind: type[Trainer] = Trainer, **kw: Any
) -> Trainer:
    settings: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **kw,
    }
    return kind(
        bert(),
        TrainingArguments(str(folder / "out"), **settings),
        train_dataset=Tokens(),
        eval_dataset=Tokens(16),
        callbacks=list(callbacks),
    )


class Following(TrainerCallback):
    """Keeps every step by hand."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.steps = Snapshots(kwargs["model"])
        self.optimizer = kwargs["optimizer"].optimizer
        self.steps.follow(self.optimizer)


class Failing(Trainer):
    """Raises in its third step."""

    at = 2
    error = ArithmeticError("loss is 7")

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == self.at:
            raise self.error
        return super().training_step(*args, **kwargs)


class LateFailing(Failing):
    """Raises in its fourth step."""

    at = 3


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.mark.parametrize("bf16", [False, True])
def test_numbers_are_those_of_the_real_steps(
    bf16: bool, tmp_path: Path, run: Path
) -> None:
    """Accumulation, clipping, autocast, evaluation and logs, all in one."""
    following, callback = Following(), DynoscopeCallback(run, strict=True)
    training = trainer(
        tmp_path,
        following,
        callback,
        bf16=bf16,
        gradient_accumulation_steps=2,
        max_grad_norm=0.05,
        eval_strategy="steps",
        eval_steps=2,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=2,
    )
    training.train()
    assert hooks_of(following.optimizer) == 2  # those of the snapshots
    assert callback.scope is None
    opened = dynoscope.open_run(run)
    assert opened.status == "finished"
    assert opened.layers(layer="*")["step"].tolist() == [0, 1, 2, 3]
    following.steps.check(run)
    clipped = opened.layers("grad_l2", "*")["grad_l2"]
    assert clipped.max() == pytest.approx(0.05, rel=1e-3)
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss", "train_loss"):
        logged = {
            max(entry["step"] - 1, 0): entry[name]
            for entry in training.state.log_history
            if name in entry
        }
        assert scalar(run, name) == logged
    assert scalar(run, "grad_norm")[0] > 0.1  # before clipping
    assert scalar(run, "eval_loss").keys() == {0, 1, 3}
    config = opened.config
    assert config["training_arguments"]["gradient_accumulation_steps"] == 2
    assert config["model"]["hidden_size"] == 16


def test_watched_training_is_bit_identical(tmp_path: Path, run: Path) -> None:
    outcomes: list[Any] = []
    for callbacks in ([], [DynoscopeCallback(run, strict=True, histograms=True)]):
        training = trainer(tmp_path, *callbacks, gradient_accumulation_steps=2)
        training.train()
        outcomes += [(bits(training.model, training.optimizer), torch.rand(3).tolist())]
    assert outcomes[0] == outcomes[1]


def test_options_reach_the_watch(tmp_path: Path, run: Path) -> None:
    callback = DynoscopeCallback(
        run, every=3, include="classifier", config={"idea": "first"}, quiet=True
    )
    trainer(tmp_path, callback).train()
    opened = dynoscope.open_run(run)
    assert opened.layers(layer="*")["step"].tolist() == [0, 3]
    assert opened.layer_names == ["classifier.weight", "classifier.bias"]
    assert opened.config["idea"] == "first"
    assert "learning_rate" in opened.config["training_arguments"]
    with pytest.raises(TypeError, match="evry"):
        DynoscopeCallback(run, evry=3)


def test_a_checkpointed_training_goes_on_in_its_run(tmp_path: Path, run: Path) -> None:
    saving: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 2,
        "lr_scheduler_type": "constant",
    }
    whole = trainer(tmp_path / "whole", max_steps=4, **saving)
    whole.train()
    trainer(tmp_path, DynoscopeCallback(run), max_steps=2, **saving).train()
    following = Following()
    resumed = trainer(tmp_path, DynoscopeCallback(run), following, **saving)
    resumed.train(resume_from_checkpoint=True)
    assert bits(resumed.model) == bits(whole.model)
    opened = dynoscope.open_run(run)
    assert opened.layers(layer="*")["step"].tolist() == [0, 1, 2, 3]
    assert scalar(run, "loss").keys() == {0, 1, 2, 3}
    last = following.steps.steps[-1][0]["classifier.weight"]
    norms = opened.layers("weight_norm", "classifier.weight")["weight_norm"]
    assert norms.iloc[-1] == pytest.approx((last**2).sum() ** 0.5)


def test_what_a_checkpoint_knows_nothing_of_is_superseded(
    tmp_path: Path, run: Path
) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    with pytest.raises(ArithmeticError), DynoscopeCallback(run) as callback:
        trainer(tmp_path, callback, kind=LateFailing, **saving).train()
    assert dynoscope.open_run(run).last_step == 2
    trainer(tmp_path, DynoscopeCallback(run), **saving).train(
        resume_from_checkpoint=True
    )
    opened = dynoscope.open_run(run)
    assert opened.status == "finished"
    assert opened.layers(layer="*")["step"].tolist() == [0, 1, 2, 3]
    assert opened.scalars("loss")["step"].tolist() == [0, 1, 2, 3]
    assert len(opened.branches) == 1


def test_what_is_watched_saves_and_copies(tmp_path: Path, run: Path) -> None:
    class Copying(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.model = copy.deepcopy(kwargs["model"])
            self.optimizer = pickle.loads(pickle.dumps(kwargs["optimizer"].optimizer))

    copying, callback = Copying(), DynoscopeCallback(run, every=2)
    training = trainer(tmp_path, callback, copying)
    training.train()
    assert hooks_of(copying.optimizer) == 0
    assert bits(copying.model) == bits(training.model)
    training.save_model(str(tmp_path / "saved"))
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert bits(loaded) == bits(training.model)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        twin._held._options["run"] = tmp_path / "twin"
        twin._held._options["overwrite"] = True
        trainer(tmp_path, twin).train()
        assert dynoscope.open_run(tmp_path / "twin").last_step == 2


@pytest.fixture
def left_open(tmp_path: Path, run: Path) -> Iterator[DynoscopeCallback]:
    """A callback whose training has raised, which nobody has told it."""
    callback = DynoscopeCallback(run)
    with pytest.raises(ArithmeticError, match="loss is 7"):
        trainer(tmp_path, callback, kind=Failing).train()
    assert callback.scope is not None
    assert dynoscope.open_run(run).status == "running"
    yield callback
    callback.close()


def test_a_training_that_raised_is_closed_by_hand(
    left_open: DynoscopeCallback, run: Path
) -> None:
    optimizer = left_open.scope._watcher.watched.optimizers[0].optimizer  # type: ignore[union-attr]
    left_open.close(Failing.error)
    opened = dynoscope.open_run(run)
    assert (opened.status, opened.exception) == (
        "failed",
        "ArithmeticError: loss is 7",
    )
    assert hooks_of(optimizer) == 0
    assert opened.last_step == 1


def test_the_end_of_a_block_closes_the_run(tmp_path: Path, run: Path) -> None:
    with (
        pytest.raises(ArithmeticError) as caught,
        DynoscopeCallback(run) as callback,
    ):
        trainer(tmp_path, callback, kind=Failing).train()
    assert caught.value is Failing.error
    assert dynoscope.open_run(run).exception == "ArithmeticError: loss is 7"


def test_the_next_training_closes_what_was_left_open(
    left_open: DynoscopeCallback, tmp_path: Path, run: Path
) -> None:
    other = DynoscopeCallback(tmp_path / "other")
    trainer(tmp_path, other).train()
    assert left_open.scope is None
    opened = dynoscope.open_run(run)
    assert opened.status == "failed"
    assert opened.exception == (
        "TrainingStoppedError: the training ended before it was done"
    )
    assert dynoscope.open_run(tmp_path / "other").status == "finished"


def test_a_training_within_a_training_closes_nothing(tmp_path: Path, run: Path) -> None:
    class Nesting(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step == 1:
                inner = DynoscopeCallback(tmp_path / "inner", quiet=True)
                trainer(tmp_path / "other", inner).train()

    trainer(tmp_path, DynoscopeCallback(run, quiet=True), Nesting()).train()
    for folder in (run, tmp_path / "inner"):
        opened = dynoscope.open_run(folder)
        assert (opened.status, opened.last_step) == ("finished", 3)


def test_a_callback_that_goes_closes_its_run(tmp_path: Path, run: Path) -> None:
    try:
        trainer(tmp_path, DynoscopeCallback(run), kind=Failing).train()
    except ArithmeticError as error:
        error.__traceback__ = None  # it holds on to the Trainer
    gc.collect()
    assert dynoscope.open_run(run).status == "failed"


def test_smaller_batches_begin_the_run_anew(tmp_path: Path, run: Path) -> None:
    class Large(Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if self._train_batch_size == 8 and self.state.global_step == 1:
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(*args, **kwargs)

    callback = DynoscopeCallback(run)
    trainer(tmp_path, callback, kind=Large, auto_find_batch_size=True).train()
    opened = dynoscope.open_run(run)
    assert opened.status == "finished"
    assert opened.layers(layer="*")["step"].tolist() == [0, 1, 2, 3]


SCRIPT = """
from pathlib import Path
from dynoscope.hooks.transformers import DynoscopeCallback
from tests.hooks.test_transformers import Failing, trainer
folder = Path({folder!r})
trainer(folder, DynoscopeCallback(folder / "run"), kind=Failing).train()
"""


def test_a_process_that_dies_of_it_says_so(tmp_path: Path, run: Path) -> None:
    script = SCRIPT.format(folder=str(tmp_path))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ArithmeticError: loss is 7")
    opened = dynoscope.open_run(run)
    assert (opened.status, opened.exception) == (
        "failed",
        "ArithmeticError: loss is 7",
    )
