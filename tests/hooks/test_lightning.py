"""The callback in real Lightning trainers: numbers, checkpoints, and GANs."""

import copy
import pickle
from pathlib import Path
from typing import Any

import lightning
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dynoscope
import dynoscope.hooks.pytorch_lightning as other_name
from dynoscope.hooks.lightning import DynoscopeCallback
from tests.hooks.snapshots import Snapshots, bits, hooks_of, scalar

pytestmark = [  # Lightning's own: of torch's internals, and of how the fits are set up
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        ".*isinstance.treespec, LeafSpec.*:FutureWarning",
        "Checkpoint directory .* exists and is not empty:UserWarning",
        "You defined a `validation_step` but have no:UserWarning",
        "The .*dataloader' does not have many workers:UserWarning",
        "The number of training batches .* is smaller than the logging:UserWarning",
    )
]


def data(count: int = 40) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 6, generator=generator)
    return DataLoader(TensorDataset(images, images[:, :1].sin()), 8)


class Regression(lightning.LightningModule):
    """Logs in every place; keeps every step by hand."""

    raises_at: int | None = None
    error: BaseException = ArithmeticError("loss is 7")

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        self.steps = Snapshots(self)

    def loss(self, batch: Any) -> Tensor:
        inputs, targets = batch
        loss: Tensor = (self.net(inputs) - targets).square().mean()
        return loss

    def training_step(self, batch: Any, index: int) -> Tensor:
        if self.trainer.global_step == self.raises_at:
            raise self.error
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.loss(batch))

    def on_train_epoch_end(self) -> None:
        self.log("late", float(self.current_epoch))

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        super().configure_gradient_clipping(*args, **kwargs)
        self.steps.before()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        grads = (p.grad for p in self.parameters() if p.grad is not None)
        if all(grad.isfinite().all() for grad in grads):  # else a scaler skips it
            self.steps.after()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])


def trainer(folder: Path, *callbacks: Any, kind: Any = lightning, **kw: Any) -> Any:
    settings: dict[str, Any] = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "callbacks": list(callbacks),
        **kw,
    }
    return kind.Trainer(**settings)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


SCALER = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # float16 ends at 2**16
SCALED = {"plugins": [MixedPrecision("16-mixed", "cpu", SCALER)]}


@pytest.mark.parametrize(
    "precision", [{"precision": "32-true"}, {"precision": "bf16-mixed"}, SCALED]
)
def test_numbers_are_those_of_the_real_steps(
    precision: dict[str, Any], tmp_path: Path, run: Path
) -> None:
    """Accumulation, clipping, autocast and a scaler that overflows at first."""
    module, callback = Regression(), DynoscopeCallback(run, strict=True)
    fitting = trainer(
        tmp_path,
        callback,
        accumulate_grad_batches=2,
        gradient_clip_val=0.05,
        max_epochs=30 if precision is SCALED else 3,
        **copy.deepcopy(precision),
    )
    fitting.fit(module, data())
    assert hooks_of(fitting.optimizers[0]) == 0
    assert callback.scope is None
    opened = dynoscope.open_run(run)
    assert opened.status == "finished"
    taken = len(module.steps.steps)
    assert opened.layers(layer="*")["step"].tolist() == list(range(taken))
    if "precision" in precision:
        assert taken == 9
    else:
        assert 0 < taken < 90
    module.steps.check(run)
    clipped = opened.layers("grad_l2", "*")["grad_l2"]
    assert clipped.max() == pytest.approx(0.05, rel=1e-3)
    assert opened.config["lr"] == 1e-2
    assert opened.config["trainer"]["gradient_clip_val"] == 0.05


def test_what_is_logged_is_recorded_once_where_it_belongs(
    tmp_path: Path, run: Path
) -> None:
    module, callback = Regression(), DynoscopeCallback(run, strict=True)
    fitting = trainer(tmp_path, callback, accumulate_grad_batches=2)
    fitting.fit(module, data(), data())
    rows = dynoscope.open_run(run).scalars(
        ["loss_step", "loss_epoch", "val_loss", "late"]
    )
    steps = {name: list(group["step"]) for name, group in rows.groupby("name")}
    assert steps == {
        "loss_step": [0, 1, 2, 3, 4, 5],
        "loss_epoch": [2, 5],
        "val_loss": [2, 5],
        "late": [2, 5],
    }
    assert scalar(run, "late") == {2: 0.0, 5: 1.0}
    for name in ("val_loss", "loss_epoch", "loss_step"):
        last = float(fitting.logged_metrics[name])
        assert scalar(run, name)[5] == pytest.approx(last)


def test_watched_fits_are_bit_identical(tmp_path: Path, run: Path) -> None:
    outcomes: list[Any] = []
    for callbacks in ([], [DynoscopeCallback(run, strict=True, histograms=True)]):
        fitting = trainer(tmp_path, *callbacks, accumulate_grad_batches=2)
        module = Regression()
        torch.manual_seed(1)
        fitting.fit(module, data(), data())
        outcomes += [(bits(module, fitting.optimizers[0]), torch.rand(3).tolist())]
    assert outcomes[0] == outcomes[1]


class Adversaries(lightning.LightningModule):
    """Two optimizers, stepped by hand; one of them half as often."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        torch.manual_seed(0)
        self.generator, self.critic = nn.Linear(2, 6), nn.Linear(6, 1)
        self.steps = Snapshots(self.generator), Snapshots(self.critic)

    def training_step(self, batch: Any, index: int) -> None:
        optimizers: Any = self.optimizers()
        first, second = optimizers
        noise = torch.ones(8, 2)
        if index % 2 == 0:
            self.toggle_optimizer(first)
            self.manual_backward(-self.critic(self.generator(noise)).mean())
            self.clip_gradients(first, 0.1, "norm")
            first.step()
            first.zero_grad()
            self.untoggle_optimizer(first)
        fake = self.critic(self.generator(noise).detach()).mean()
        loss = fake - self.critic(batch[0]).mean()
        self.manual_backward(loss)
        second.step()
        second.zero_grad()
        self.log("critic_loss", loss)

    def on_train_start(self) -> None:
        for steps, optimizer in zip(self.steps, self.trainer.optimizers, strict=True):
            steps.follow(optimizer)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(self.generator.parameters(), lr=1e-2),
            torch.optim.SGD(self.critic.parameters(), lr=1e-2, momentum=0.9),
        ]


def test_a_gan_is_one_run_of_rounds(tmp_path: Path, run: Path) -> None:
    module = Adversaries()
    trainer(tmp_path, DynoscopeCallback(run, strict=True), max_epochs=1).fit(
        module, data(48)
    )
    opened = dynoscope.open_run(run)
    generator = opened.layers("update_norm", "generator.weight")
    assert generator["step"].tolist() == [0, 1, 3]  # each round has a critic's step
    assert opened.layers("update_norm", "critic.weight")["step"].tolist() == [*range(6)]
    assert scalar(run, "critic_loss").keys() == set(range(6))
    for index, (old, _, new) in enumerate(module.steps[0].steps):
        change = torch.tensor(new["weight"] - old["weight"]).norm()
        assert generator["update_norm"][index] == pytest.approx(float(change), rel=1e-5)


def test_a_fit_from_a_checkpoint_goes_on_in_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, part, rest = Regression(), Regression(), Regression()
    trainer(tmp_path).fit(whole, data())
    for module, settings, start in (
        (part, {"max_epochs": 1}, None),
        (rest, {}, tmp_path / "half.ckpt"),
    ):
        fitting = trainer(
            tmp_path,
            DynoscopeCallback(quiet=True),
            ModelCheckpoint(tmp_path, "half"),
            enable_checkpointing=True,
            **settings,
        )
        fitting.fit(module, data(), ckpt_path=start)
    assert bits(rest) == bits(whole)
    (opened,) = (dynoscope.open_run(path) for path in (tmp_path / "runs").iterdir())
    assert opened.layers(layer="*")["step"].tolist() == list(range(10))
    assert scalar(opened.path, "loss_step").keys() == set(range(10))
    loaded = Regression.load_from_checkpoint(tmp_path / "half.ckpt")
    assert bits(loaded) == bits(rest)


def test_a_fit_from_an_older_checkpoint_supersedes_what_came_after(
    tmp_path: Path, run: Path
) -> None:
    for ends, start in ((2, None), (3, tmp_path / "epoch=0.ckpt")):
        rest = Regression()
        checkpoints = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        options: dict[str, Any] = {"max_epochs": ends, "enable_checkpointing": True}
        callback = DynoscopeCallback(run, quiet=True)
        trainer(tmp_path, callback, checkpoints, **options).fit(
            rest, data(), ckpt_path=start
        )
    opened = dynoscope.open_run(run)
    assert opened.layers(layer="*")["step"].tolist() == list(range(15))
    assert opened.scalars("loss_step")["step"].tolist() == list(range(15))
    assert len(opened.branches) == 1


@pytest.mark.parametrize("error", [ArithmeticError("loss is 7"), KeyboardInterrupt()])
def test_an_exception_closes_the_run(
    error: BaseException, tmp_path: Path, run: Path
) -> None:
    module, callback = Regression(), DynoscopeCallback(run, strict=True)
    module.raises_at, module.error = 3, error
    fitting = trainer(tmp_path, callback)
    with pytest.raises((ArithmeticError, SystemExit)):
        fitting.fit(module, data())
    opened = dynoscope.open_run(run)
    assert opened.status == "failed"
    assert opened.exception == f"{type(error).__name__}: {error}"
    assert opened.last_step == 2
    assert hooks_of(fitting.optimizers[0]) == 0


def test_what_is_watched_copies(tmp_path: Path, run: Path) -> None:
    class Copying(lightning.Callback):
        def on_train_batch_end(self, fitting: Any, module: Any, *args: Any) -> None:
            self.weights = bits(copy.deepcopy(module.net))
            self.optimizer = pickle.loads(pickle.dumps(fitting.optimizers[0]))

    copying, callback = Copying(), DynoscopeCallback(run, quiet=True)
    module = Regression()
    trainer(tmp_path, callback, copying, max_epochs=1).fit(module, data())
    assert hooks_of(copying.optimizer) == 0
    assert copying.weights == bits(module.net)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert (
            twin.state_dict() == callback.state_dict() == {"run": str(run), "step": 5}
        )


def test_both_names_of_lightning_are_served(tmp_path: Path, run: Path) -> None:
    class Same(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(6, 1)

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss: Tensor = self.net(batch[0]).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callback = other_name.DynoscopeCallback(run, every=2, strict=True)
    fitting = trainer(tmp_path, callback, kind=pytorch_lightning, max_epochs=1)
    fitting.fit(Same(), data())
    opened = dynoscope.open_run(run)
    assert opened.layers(layer="*")["step"].tolist() == [0, 2, 4]
    assert scalar(run, "loss").keys() == set(range(5))


def test_what_fabric_sets_up_is_watched(run: Path) -> None:
    fabric = lightning.Fabric(accelerator="cpu", precision="bf16-mixed")
    module = Regression()
    adamw = torch.optim.AdamW(module.net.parameters(), lr=1e-2)
    module.steps = Snapshots(module.net)
    module.steps.follow(adamw)
    net, optimizer = fabric.setup(module.net, adamw)
    with dynoscope.watch(net, optimizer, run=run, strict=True):
        for inputs, _ in data():
            fabric.backward(net(inputs).square().mean())
            fabric.clip_gradients(net, optimizer, max_norm=0.05)
            optimizer.step()
            optimizer.zero_grad()
    module.steps.check(run)
    assert dynoscope.open_run(run).layer_names[0] == "0.weight"
