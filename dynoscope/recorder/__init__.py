"""Measurements to journal to Parquet: a run folder, written as it happens."""

from dynoscope.recorder.bystander import Bystander
from dynoscope.recorder.past import Past
from dynoscope.recorder.recorder import Recorder

__all__ = ["Bystander", "Past", "Recorder"]
