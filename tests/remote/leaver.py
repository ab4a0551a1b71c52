"""A training whose block is left by a forked process, and never by itself: URI."""

import os
import sys

import torch

import dynoscope
from tests.networks import OPTIMIZERS, MixedNet, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    model = MixedNet()
    optimizer = OPTIMIZERS["lion"](model)
    watch = dynoscope.watch(model, optimizer, run=sys.argv[1])
    watch.__enter__()
    train(model, optimizer, 3)
    child = os.fork()
    if not child:
        watch.__exit__(None, None, None)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    train(model, optimizer, 3)
