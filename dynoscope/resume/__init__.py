"""Go on with a recorded run, after a crash or from an older checkpoint."""

from dynoscope.resume.folder import existing, fresh_folder, prepared
from dynoscope.resume.run import go_on
from dynoscope.resume.start import checked_start, first_step

__all__ = [
    "checked_start",
    "existing",
    "first_step",
    "fresh_folder",
    "go_on",
    "prepared",
]
