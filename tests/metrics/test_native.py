"""The compiled kernel: where it comes from, and what it does without a compiler."""

import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from dynoscope.metrics.sums import Kernel, SecondMoment, Spec, native

ASK = "from dynoscope.metrics.sums import native; print(native.available())"


def ask(environment: dict[str, str]) -> str:
    """Whether a fresh process has the kernel."""
    return subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_it_is_compiled_once_for_a_machine(tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    assert ask(cache) == "True"
    (library,) = (tmp_path / "dynoscope").iterdir()
    written = library.stat().st_mtime_ns
    assert ask({**cache, "PATH": "/nowhere"}) == "False"  # not even looked for
    assert ask(cache) == "True"
    assert library.stat().st_mtime_ns == written


def test_without_a_compiler_or_a_cache_there_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'no such target' >&2\nexit 1\n")
    broken.chmod(0o755)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert ask({**cache, "PATH": str(tmp_path)}) == "False"
    (tmp_path / "file").touch()
    assert ask({"XDG_CACHE_HOME": str(tmp_path / "file")}) == "False"
    assert ask({"DYNOSCOPE_NATIVE": "0"}) == "False"


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    shapes = [(300, 500), (70_000,), (9, 2), (1, 40_000)]
    tensors = [[torch.randn(s) for s in shapes] for _ in range(4)]
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            parameters = [torch.nn.Parameter(w.clone()) for w in tensors[0]]
            kernel = Kernel([Spec(p, rows=p.dim() > 1) for p in parameters])
            kernel.before(tensors[1], tensors[2], [1.0] * 4)
            for p, d in zip(parameters, tensors[3], strict=True):
                p.data.add_(d)
            seconds = [SecondMoment(m.square(), 0.5, 1e-8) for m in tensors[2]]
            kernel.after(tensors[1], lambda: tensors[2], seconds)
            host = kernel.ship()()
            found.append((host.sums.tobytes(), host.rows.tobytes()))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_gradients_are_not_kept_alive() -> None:
    parameter = torch.nn.Parameter(torch.ones(5))
    kernel = Kernel([Spec(parameter)])
    grad = torch.ones(5)
    gone = weakref.ref(grad)
    kernel.before([grad], [None], [torch.inf])
    kernel.after([grad], lambda: [None], [None])
    del grad
    assert gone() is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_momentum_of_another_dtype_is_read(dtype: torch.dtype) -> None:
    parameter = torch.nn.Parameter(torch.ones(40, dtype=torch.bfloat16))
    kernel = Kernel([Spec(parameter)])
    momentum = torch.full((40,), 0.1, dtype=dtype)
    kernel.before([parameter.detach()], [momentum], [torch.inf])
    kernel.after([None], lambda: [None], [None])
    sums = kernel.ship()().sums
    assert native.available()
    assert sums[3, 0] == pytest.approx(float(momentum.double().square().sum()))
