"""Attach to a live model and optimizer, emit measurements, detach cleanly."""

from dynoscope.hooks.subject import Watched, find_watched
from dynoscope.hooks.watcher import Watcher

__all__ = ["Watched", "Watcher", "find_watched"]
