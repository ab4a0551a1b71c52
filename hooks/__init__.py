"""Attach to a live model and optimizer, emit measurements, detach cleanly."""

from dynoscope.hooks.activity import Forward, activity_rows
from dynoscope.hooks.batches import Samples
from dynoscope.hooks.constraint import constraint_rows
from dynoscope.hooks.counts import own_count
from dynoscope.hooks.full_gradient import BatchLoss, full_gradient_rows
from dynoscope.hooks.invariance import ModelLoss, invariance_rows
from dynoscope.hooks.parameters import Models
from dynoscope.hooks.processes import ALONE, Processes, processes_of
from dynoscope.hooks.recognition import register_optimizer
from dynoscope.hooks.subject import Optimizers, Watched, find_watched
from dynoscope.hooks.turns import Turns
from dynoscope.hooks.unstepped import Unstepped
from dynoscope.hooks.watcher import Watcher

__all__ = [
    "ALONE",
    "BatchLoss",
    "Forward",
    "ModelLoss",
    "Models",
    "Optimizers",
    "Processes",
    "Samples",
    "Turns",
    "Unstepped",
    "Watched",
    "Watcher",
    "activity_rows",
    "constraint_rows",
    "find_watched",
    "full_gradient_rows",
    "invariance_rows",
    "own_count",
    "processes_of",
    "register_optimizer",
]
