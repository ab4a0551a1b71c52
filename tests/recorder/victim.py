"""A training that is going to be killed: says each step as soon as it is done."""

import sys
import time

import torch

import dynoscope
from tests.networks import OPTIMIZERS, MixedNet, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MixedNet()
    optimizer = OPTIMIZERS["lion"](model)
    with dynoscope.watch(model, optimizer, run=sys.argv[1], every=1) as scope:
        train(
            model,
            optimizer,
            1_000_000,
            lambda loss: print(scope.step - 1, time.time(), flush=True),
        )
