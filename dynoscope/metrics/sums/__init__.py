"""Tensors to packed sums, on the device.

The one place that touches a training's tensors. It reads them, writes only to
buffers of its own, draws no random number, and never waits for a device.

A large layer is walked in pieces that fit the cache, so that weight, gradient
and momentum come from memory once and every sum over a piece is taken while it
is there; short pieces also keep float32 sums accurate (relative error below 1e-6,
1e-5 for bfloat16 values, whatever the size of the layer). Small layers of one size
are stacked and summed together, since for them the calls cost more than the numbers.
"""

from dynoscope.metrics.sums.histogram import Counted, Histograms, start_counts
from dynoscope.metrics.sums.kernel import Kernel
from dynoscope.metrics.sums.number import read_later
from dynoscope.metrics.sums.shards import GroupError
from dynoscope.metrics.sums.spec import Spec
from dynoscope.metrics.sums.tensors import SecondMoment, Tensors, kinds_of, real

__all__ = [
    "Counted",
    "GroupError",
    "Histograms",
    "Kernel",
    "SecondMoment",
    "Spec",
    "Tensors",
    "kinds_of",
    "read_later",
    "real",
    "start_counts",
]
