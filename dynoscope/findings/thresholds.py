"""Every threshold of every rule, in one place."""

import dataclasses

__all__ = ["Thresholds"]


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """From where on the rules speak up; `dataclasses.replace` changes some.

    Attributes:
        ghost_share: ghost steps per channel and measured step of a normalization
            layer. Measured on small ReLU networks: .065 for Lion, .0005 for the same
            with LeakyReLU.
        revivals: channels of a layer that came back after a long silence.
        warmup_ratio: angular update over that of equilibrium, early in a run.
        warmup_steps: fewest steps for which a layer turns that fast. The first few
            of Adam are always large, until its second moment has a past.
        settled_half_lives: half-lives of the norm after which a layer should be in
            equilibrium; an eighth of the initial distance is left after three.
        off_equilibrium: factor between angular update and prediction, either way.
            Correlated gradients alone make for 1.5.
        scale_invariant_cos: root mean square cosine of weight and gradient up to
            which a layer counts as scale-invariant.
        imbalance: factor between the fastest and the slowest layer's rotation.
        still_steps: measured steps in a row without any update, or gradient.
        unmoved_share: share of low-precision weights that an update leaves as they
            are.
        grad_density: gradient l1/l2 over sqrt(numel); .798 if Gaussian, and the root
            of the share of coordinates if all but some equal ones are 0.
        grad_density_numel: elements that a layer has at least, for that to count.
        box_share: share of weights at the edge of Lion's box, or outside.
        run_half_lives: half-lives of the norm that a run should last.
        recent: share of the run that counts as recent.
    """

    ghost_share: float = 0.01
    revivals: int = 1
    warmup_ratio: float = 3.0
    warmup_steps: int = 20
    settled_half_lives: float = 3.0
    off_equilibrium: float = 2.0
    scale_invariant_cos: float = 0.01
    imbalance: float = 4.0
    still_steps: int = 50
    unmoved_share: float = 0.5
    grad_density: float = 0.1
    grad_density_numel: int = 256
    box_share: float = 0.1
    run_half_lives: float = 1.0
    recent: float = 0.25
