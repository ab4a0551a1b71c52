"""Measured steps reuse what the first ones have set aside."""

import functools
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from dynoscope.hooks import Watcher, find_watched
from dynoscope.optim import Lion
from dynoscope.recorder import Bystander
from dynoscope.schedule import every

WARM_UP, STEPS = 3, 3


class Ledger:
    """Keeps the largest allocation of torch's, and most of Python's and NumPy's."""

    def __init__(self) -> None:
        self.of_torch: list[int] = [0]
        self.of_python: list[int] = [0]

    @contextmanager
    def page(self) -> Iterator[None]:
        """Write down what is allocated meanwhile."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            tracemalloc.start()
            try:
                yield
                self.of_python.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
        self.of_torch += [
            event.nbytes()
            for event in seen.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ]

    def around(self, hooks: dict[int, Any]) -> None:
        """Write down what hooks allocate, from now on."""
        for key, hook in hooks.items():
            hooks[key] = self._noting(hook)

    def _noting(self, hook: Any) -> Any:
        def noted(*args: Any) -> Any:
            with self.page():
                return hook(*args)

        return noted


def test_the_ledger_sees_what_is_allocated() -> None:
    ledger = Ledger()
    with ledger.page():
        torch.ones(1 << 16).clone().numpy().copy()
    assert max(ledger.of_torch) >= 4 << 16
    assert max(ledger.of_python) >= 4 << 16


@pytest.mark.parametrize("native", ["1", "0"])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, Lion])
def test_no_memory_of_the_size_of_a_layer(
    kind: type[torch.optim.Optimizer],
    native: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DYNOSCOPE_NATIVE", native)
    torch.manual_seed(0)
    # One that is cut into pieces, and small ones that are stacked, without the kernel.
    model = torch.nn.Sequential(torch.nn.Linear(600, 600), torch.nn.Linear(600, 50))
    small = 4 * 600 * 50
    optimizer = kind(model.parameters(), lr=0.01, weight_decay=0.1)  # type: ignore[call-arg]
    ledger = Ledger()
    watcher = Watcher(functools.partial(find_watched, model, optimizer), every(1))
    # No writer's thread: Python's ledger is one for all threads.
    watcher.attach(Bystander(0, strict=True))
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            ledger.around(optimizer._optimizer_step_pre_hooks)
            ledger.around(optimizer._optimizer_step_post_hooks)
        model(torch.randn(8, 600)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    watcher.detach()
    assert len(ledger.of_python) == 1 + 2 * STEPS
    assert max(ledger.of_torch) < small
    # Other threads of the process may allocate once meanwhile, not at each step.
    assert sum(size >= small for size in ledger.of_python) <= 1
