"""From tensors to sums (`sums`, torch) and from sums to metrics (the rest, numpy)."""
