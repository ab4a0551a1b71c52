"""Steps that inductor compiles, against the same steps as they are written."""

import os
import shutil
from collections.abc import Callable

import pytest
import torch
from torch.optim import Optimizer

from dynoscope.optim import Lion, OrtSepNorm
from tests.optim.suite import Regression

COMPILERS = [os.environ.get("CXX", ""), "g++", "clang++"]
DEVICES = [
    pytest.param(
        "cpu",
        marks=pytest.mark.skipif(
            not any(map(shutil.which, COMPILERS)), reason="needs a C++ compiler"
        ),
    ),
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    ),
]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # in inductor
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [Lion, OrtSepNorm])
def test_compiled_steps_are_the_steps(
    make: Callable[..., Optimizer], device: str
) -> None:
    torch.compiler.reset()
    compiled, plain = Regression(device), Regression(device)
    lr = torch.tensor(0.1)
    optimizer = make(compiled.params, lr=lr, weight_decay=0.5)
    reference = make(plain.params, lr=0.1, weight_decay=0.5)
    step = torch.compile(optimizer.step)
    for index, its_lr in enumerate((0.1, 0.1, 0.1, 0.01)):
        lr.fill_(its_lr)
        reference.param_groups[0]["lr"] = its_lr
        compiled.loss()
        plain.loss()
        # the first step makes the state, the second finds it
        with torch._dynamo.config.patch(error_on_recompile=index > 1):
            step()
        reference.step()
        torch.testing.assert_close(compiled.params, plain.params)
        compiled.copy_from(plain)
