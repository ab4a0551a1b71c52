"""The box |w| <= 1/weight_decay that Lion minimises in, and how near it is to done.

With decoupled weight decay lambda, updates of size 1 hold every weight in the box
|w| <= 1/lambda. There the loss is stationary where the KKT gap is 0:

    lambda <w, g> + ||g||_1 >= 0 inside the box

since lambda <w, g> >= -||g||_1 for every w in it, with equality where each weight
with a gradient is at the edge that the gradient pushes it to.

Source: the Lion-K paper, section 3 (the box); the LION-rate paper, lemma 1 (the gap).
"""

from dynoscope.measurement import FloatArray
from dynoscope.metrics.derive import LayerSums

__all__ = ["kkt_gap"]


def kkt_gap(s: LayerSums, weight_decay: FloatArray) -> FloatArray:
    """KKT gap of the step's gradient, lambda <w, g> + ||g||_1, in the gradient's unit.

    It is at least 0 inside the box; ||g||_1 without weight decay. With a stochastic
    gradient its mean bounds that of the full gradient from above.

    Args:
        s: sums of layers.
        weight_decay: lambda of each layer's group, NaN where it is not decoupled;
            broadcast against the sums.
    """
    gap: FloatArray = weight_decay * s.weight_grad + s.grad_abs
    return gap
