"""CUDA: nothing waits for the device, and what is captured is left alone."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

import dynoscope
from dynoscope.hooks import watcher
from dynoscope.hooks.graphs import CAPTURED, is_capturing
from dynoscope.metrics.sums import Histograms, Kernel, SecondMoment, Spec
from tests.hooks.loops import Witness, batch, check, net, numbered, state_of

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_no_sum_looks_at_a_number() -> None:
    """On the meta device there are none: whoever asks for one is told so."""
    shapes = [(300, 200), (8, 4), (8,), (5000,), (2, 3, 5, 5)]
    parameters = [torch.empty(shape, device="meta") for shape in shapes]
    with pytest.raises(RuntimeError, match="meta"):
        bool(parameters[0].sum())
    kernel = Kernel(
        [Spec(p, rows=p.dim() > 1, channels=p.shape == (8,)) for p in parameters]
    )
    grads = [torch.empty_like(p) for p in parameters]
    seconds = [
        SecondMoment(g, torch.empty((), device="meta").sqrt(), 1e-8) for g in grads
    ]
    for again in (False, True):
        kernel.before(grads, grads, [3.0] * len(shapes), again=again)
    kernel.after(grads, lambda: grads, seconds)
    with pytest.raises(NotImplementedError, match="meta"):
        kernel.ship()  # what is to be read at last
    Histograms(parameters).take(grads)


def test_nothing_is_captured_here() -> None:
    assert not is_capturing()


def test_a_captured_step_is_not_measured_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        for index in range(4):
            # as the step is while a graph is being captured
            monkeypatch.setattr(watcher, "is_capturing", lambda now=index == 2: now)
            model(batch()[0]).sum().backward()
            optimizer.step()
    run = dynoscope.open_run(tmp_path / "run")
    assert run.layers()["step"].unique().tolist() == [0, 1, 3]
    assert run.problems == [CAPTURED]


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@CUDA
@pytest.mark.parametrize("fused", [False, True])
def test_watching_waits_for_no_device(fused: bool, tmp_path: Path) -> None:
    model = net().cuda()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=torch.tensor(1e-3, device="cuda"), fused=fused,
        capturable=True,
    )  # fmt: skip
    inputs = batch()[0].cuda()
    with (
        dynoscope.watch(
            model, optimizer, run=tmp_path / "run", strict=True, histograms=True
        ) as scope,
        Witness(model, optimizer) as witness,
    ):
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            scope.log(loss=loss)
            optimizer.step()
    check(dynoscope.open_run(tmp_path / "run"), numbered(witness.steps), rel=1e-4)
    with (
        dynoscope.watch(model, optimizer, run=tmp_path / "quiet", strict=True) as scope,
        no_waiting(),
    ):
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            scope.log(loss=loss)
            optimizer.step()
    assert dynoscope.open_run(tmp_path / "quiet").layers()["step"].max() == 4


@CUDA
def test_a_fused_optimizer_under_a_scaler_waits_for_no_device(tmp_path: Path) -> None:
    ends = []
    for watching in (False, True):
        model = net().cuda()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        scaler = GradScaler("cuda", 1024.0)
        inputs = batch()[0].cuda()
        with (
            dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True)
            if watching
            else contextlib.nullcontext(),
            no_waiting(),
        ):
            for index in range(5):
                optimizer.zero_grad()
                loss = model(inputs).square().mean()
                if index == 2:
                    loss = loss * torch.inf
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
        ends.append(state_of(model, optimizer))
    assert ends[0] == ends[1]
    progress = dynoscope.open_run(tmp_path / "run").manifest["progress"]
    assert (progress["measured"], progress["overflowed"]) == (4, 1)


@CUDA
def test_a_training_in_a_graph_replays_as_it_was_captured(tmp_path: Path) -> None:
    ends = []
    for watching in (False, True):
        model = nn.Linear(8, 8).cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        inputs = torch.ones(4, 8, device="cuda")

        with (
            dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True)
            if watching
            else contextlib.nullcontext()
        ):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    train_once(model, optimizer, inputs)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                train_once(model, optimizer, inputs)
            for _ in range(3):
                graph.replay()
            torch.cuda.synchronize()
        ends.append(state_of(model, optimizer))
    assert ends[0] == ends[1]
    run = dynoscope.open_run(tmp_path / "run")
    assert run.layers()["step"].unique().tolist() == [0, 1, 2]
    assert run.problems == [CAPTURED]


def train_once(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor
) -> None:
    optimizer.zero_grad(set_to_none=True)
    model(inputs).square().mean().backward()
    optimizer.step()
