"""Attach to a live model and optimizer, emit measurements, detach cleanly."""

from dynoscope.hooks.activity import Forward, activity_rows
from dynoscope.hooks.batches import Samples
from dynoscope.hooks.constraint import constraint_rows
from dynoscope.hooks.counts import steps_taken
from dynoscope.hooks.full_gradient import BatchLoss, full_gradient_rows
from dynoscope.hooks.invariance import ModelLoss, invariance_rows
from dynoscope.hooks.parameters import Models
from dynoscope.hooks.processes import Processes, processes_of
from dynoscope.hooks.recognition import register_optimizer
from dynoscope.hooks.subject import Optimizers, Watched, find_watched
from dynoscope.hooks.watcher import Watcher

__all__ = [
    "BatchLoss",
    "Forward",
    "ModelLoss",
    "Models",
    "Optimizers",
    "Processes",
    "Samples",
    "Watched",
    "Watcher",
    "activity_rows",
    "constraint_rows",
    "find_watched",
    "full_gradient_rows",
    "invariance_rows",
    "processes_of",
    "register_optimizer",
    "steps_taken",
]
