"""Measurements to journal to Parquet: a run folder, written as it happens."""

from dynoscope.recorder.recorder import Recorder

__all__ = ["Recorder"]
