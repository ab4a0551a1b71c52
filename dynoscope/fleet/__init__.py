"""Many runs as one table: summaries, findings and rows, on one machine or a cluster."""

from dynoscope.fleet.fleet import Fleet, open_fleet

__all__ = ["Fleet", "open_fleet"]
