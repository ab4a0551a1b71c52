"""A training that uploads and is going to be killed: victim.py URI INTERVAL."""

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
    remote = dynoscope.Remote(sys.argv[1], interval=float(sys.argv[2]))
    with dynoscope.watch(model, optimizer, run=remote, every=1) as scope:
        train(
            model,
            optimizer,
            1_000_000,
            lambda loss: print(scope.step - 1, time.time(), flush=True),
        )
