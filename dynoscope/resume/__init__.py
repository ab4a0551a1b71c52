"""Go on with a recorded run, after a crash or from an older checkpoint."""

from dynoscope.resume.run import go_on
from dynoscope.resume.start import checked_start, first_step

__all__ = ["checked_start", "first_step", "go_on"]
