"""Sealing: many small files of a run become few, sorted, with levels beside them."""

from dynoscope.sealing.compact import Compacted, compact
from dynoscope.sealing.sealer import Sealer
from dynoscope.sealing.segment import cut_segment

__all__ = ["Compacted", "Sealer", "compact", "cut_segment"]
