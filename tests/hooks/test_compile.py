"""Compiled models, steps and trainings: as many graphs as without a watch."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional

import dynoscope
from tests.hooks.loops import Closure, Witness, batch, check, numbered, state_of

Make: TypeAlias = Callable[[nn.Module], torch.optim.Optimizer]
STEPS = 4

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=torch.tensor(1e-2)),
}


class Cost(NamedTuple):
    """What torch.compile has made of a program."""

    graphs: int
    calls: int
    breaks: int


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40), nn.LayerNorm(40), nn.Linear(40, 4))


class Program:
    """A training of which something is compiled.

    Args:
        what: "model", "step", "both", or "training" for a whole iteration.
    """

    def __init__(self, what: str, name: str, backend: str) -> None:
        self.what, self._backend = what, backend
        self.model = net()
        self.optimizer = OPTIMIZERS[name](self.model)

    def compile(self) -> None:
        run: Any = self.model
        step: Any = self.optimizer.step
        if self.what in ("model", "both"):
            run = torch.compile(run, backend=self._backend)
        if self.what in ("step", "both"):
            step = torch.compile(step, backend=self._backend)

        def iterate(inputs: Tensor, labels: Tensor) -> None:
            self.optimizer.zero_grad()
            functional.cross_entropy(run(inputs), labels).backward()
            step()

        self._iterate: Any = iterate
        if self.what == "training":
            self._iterate = torch.compile(iterate, backend=self._backend)

    def run(self, steps: int = STEPS) -> None:
        for _ in range(steps):
            self._iterate(*batch())


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():  # of torch's own imports
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    torch._dynamo.reset()


@contextlib.contextmanager
def counted() -> Iterator[list[Cost]]:
    """Counts what is compiled in the block."""
    counters.clear()
    found: list[Cost] = []
    yield found
    found.append(
        Cost(
            counters["stats"]["unique_graphs"],
            counters["stats"]["calls_captured"],
            sum(counters["graph_break"].values()),
        )
    )


def assert_no_dearer(watched: Cost, plain: Cost) -> None:
    """The same graphs, each once. There may be fewer breaks to report.

    The frame around a step is not compiled for hooks, the step itself is: a frame that
    is not compiled has no breaks.
    """
    assert (watched.graphs, watched.calls) == (plain.graphs, plain.calls)
    assert plain.graphs > 0
    assert watched.breaks <= plain.breaks


@pytest.mark.parametrize(
    ("what", "name", "attached"),
    [
        ("model", "sgd", "before"),
        ("model", "sgd", "after"),
        ("step", "adamw", "before"),
        ("step", "sgd", "in between"),
        ("both", "adamw", "in between"),
        ("training", "sgd", "before"),
        ("training", "adamw", "after"),
    ],
)
def test_a_compiled_training(
    what: str, name: str, attached: str, tmp_path: Path
) -> None:
    """Attached before it is compiled, after it, or after it has run."""
    costs, ends = [], []
    for watching in (False, True):
        torch._dynamo.reset()
        program = Program(what, name, "eager")
        with counted() as cost, contextlib.ExitStack() as stack:
            if attached != "before":
                program.compile()
            if attached == "in between":
                program.run(2)
            if watching:
                witness = stack.enter_context(Witness(program.model, program.optimizer))
                scope = stack.enter_context(
                    dynoscope.watch(
                        program.model, program.optimizer, run=tmp_path, strict=True
                    )
                )
            if attached == "before":
                program.compile()
            program.run()
            if watching:
                assert scope.step == STEPS
        costs += cost
        ends.append(state_of(program.model, program.optimizer))
    assert ends[0] == ends[1]
    plain, watched = costs
    assert_no_dearer(watched, plain)
    check(dynoscope.open_run(tmp_path), numbered(witness.steps))


@pytest.mark.slow
def test_compiled_to_native_code(tmp_path: Path) -> None:
    ends = []
    for watching in (False, True):
        torch._dynamo.reset()
        program = Program("both", "sgd", "inductor")
        program.compile()
        with contextlib.ExitStack() as stack:
            if watching:
                witness = stack.enter_context(Witness(program.model, program.optimizer))
                stack.enter_context(
                    dynoscope.watch(
                        program.model, program.optimizer, run=tmp_path, strict=True
                    )
                )
            program.run()
        ends.append(state_of(program.model, program.optimizer))
    assert ends[0] == ends[1]
    check(dynoscope.open_run(tmp_path), numbered(witness.steps))


def uncompiled(closure: Closure) -> Any:
    """A closure that is called as it is, and whose loss the compiler may look at."""
    return torch.compiler.disable(lambda: closure().detach())


def test_a_compiled_step_with_a_closure(tmp_path: Path) -> None:
    costs, ends = [], []
    for watching in (False, True):
        torch._dynamo.reset()
        model, grads = net(), []
        optimizer = OPTIMIZERS["sgd"](model)
        closure = Closure(model, optimizer, set_to_none=True)
        evaluate = uncompiled(closure)
        step: Any = torch.compile(optimizer.step, backend="eager")
        with counted() as cost, contextlib.ExitStack() as stack:
            if watching:
                witness = stack.enter_context(Witness(model, optimizer))
                stack.enter_context(
                    dynoscope.watch(model, optimizer, run=tmp_path, strict=True)
                )
            for _ in range(STEPS):
                closure.calls = 0
                step(evaluate)
                grads.append(closure.first)
        costs += cost
        ends.append(state_of(model, optimizer))
    assert ends[0] == ends[1]
    plain, watched = costs
    assert_no_dearer(watched, plain)
    for seen, grad in zip(witness.steps, grads, strict=True):
        seen.grad = grad
    check(dynoscope.open_run(tmp_path), numbered(witness.steps))


def test_a_model_compiled_in_place_keeps_its_names(tmp_path: Path) -> None:
    model = nn.Sequential(net(), nn.ReLU())
    model[0].compile(backend="eager")
    model.compile(backend="eager")
    optimizer = OPTIMIZERS["sgd"](model)
    with dynoscope.watch(model, optimizer, run=tmp_path, strict=True):
        model(batch()[0]).sum().backward()
        optimizer.step()
    names = [name for name, _ in nn.Sequential(net()).named_parameters()]
    assert dynoscope.open_run(tmp_path).layer_names == names


@pytest.mark.parametrize("watching", [False, True])
def test_a_step_in_one_graph_fails_with_or_without_us(
    watching: bool, tmp_path: Path
) -> None:
    model = net()
    optimizer = OPTIMIZERS["sgd"](model)
    step: Any = torch.compile(optimizer.step, backend="eager", fullgraph=True)
    model(batch()[0]).sum().backward()
    with (
        dynoscope.watch(model, optimizer, run=tmp_path, strict=True)
        if watching
        else contextlib.nullcontext(),
        pytest.raises(torch._dynamo.exc.Unsupported),
    ):
        step()
