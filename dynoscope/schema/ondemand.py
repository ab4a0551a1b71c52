"""The tables of what is measured on demand, when the training's loop asks for it."""

from typing import Final

from dynoscope.schema.column import Metric, Table, key, measured

__all__ = ["ACTIVITY", "CONSTRAINT", "FULL_GRADIENTS", "INVARIANCE"]

_KEYS = (
    key(
        "step", "int64", "step",
        "Optimizer steps taken: the weights are those before step -> step + 1.",
        "steps",
    ),
    key("wall_time", "float64", "time", "When it was measured, since the epoch.", "s"),
)  # fmt: skip

_BATCHES = key("batches", "int64", "batches", "Batches that were looked at.")


def _precise(
    name: str,
    label: str,
    description: str,
    source: str = "",
    *,
    unit: str = "",
    log: bool = False,
) -> Metric:
    return measured(name, unit, label, description, source, dtype="float64", log=log)


_KKT = "LION-rate, lemma 1 and theorem 2"

FULL_GRADIENTS: Final = Table(
    "full_gradients",
    "One row per `scope.measure_full_gradient` and parameter tensor, `*` for all.",
    (
        *_KEYS,
        key("layer", "string", "layer", "Name of the parameter; `*`: all of them."),
        key("numel", "int64", "elements", "Number of elements."),
        _BATCHES,
        key("samples", "int64", "samples", "Samples in these batches."),
        Metric(
            "weight_decay", "float64", "setting", "", "weight decay",
            "Weight decay of the layer's group; NaN for `*` if groups differ.",
        ),
        _precise("loss", "loss", "Mean loss over the samples.", "LION-rate, eq. 11"),
        _precise(
            "grad_l1", "gradient l1", "l1 norm of the full gradient.", log=True
        ),
        _precise(
            "grad_l2", "gradient l2", "l2 norm of the full gradient.", log=True
        ),
        _precise(
            "grad_ratio", "gradient l1/l2",
            "l1 over l2 norm of the full gradient, between 1 and sqrt(numel).",
            "LION-rate, section 4",
        ),
        _precise(
            "grad_density", "gradient density",
            "grad_ratio / sqrt(numel); sqrt(2/pi) = .798 for Gaussian entries.",
            "LION-rate, section 4",
        ),
        _precise(
            "noise_scale", "noise scale",
            "tr(Sigma) / grad_l2**2, Sigma the covariance of one sample's gradient, "
            "estimated without bias from the scatter of batches; NaN for one batch.",
            "McCandlish et al. 2018, eq. 2.9", unit="samples", log=True,
        ),
        _precise(
            "kkt_gap", "KKT gap",
            "weight_decay * sum(weight * gradient) + grad_l1; at least 0 where "
            "feasible, and 0 at a KKT point of Lion's constrained problem.", _KKT,
            log=True,
        ),
        _precise(
            "weight_max", "largest |weight|", "Largest absolute weight.", log=True
        ),
        measured(
            "feasible", "", "feasible",
            "Whether weight_max <= 1 / weight_decay, up to one part in a million.",
            _KKT, dtype="bool",
        ),
    ),
)  # fmt: skip

_CHANGE = "over |loss|; NaN where it was not tried."

INVARIANCE: Final = Table(
    "invariance",
    "One row per `scope.probe_scale_invariance` and parameter tensor.",
    (
        *_KEYS,
        key("layer", "string", "layer", "Name of the parameter."),
        measured(
            "granularity", "", "scale invariance",
            "What may be rescaled without a change of the loss: each `row` on its "
            "own, the `matrix` as a whole, `none`; `unseen`: the loss does not "
            "depend on the layer at all.",
            "Kosson et al. 2024, appendix C.1", dtype="string",
        ),
        _precise("loss", "loss", "Loss with the weights as they are."),
        _precise(
            "matrix_change", "change when scaled",
            f"Largest |change of loss| as the tensor is scaled by 1/2, 2, 4, {_CHANGE}",
            log=True,
        ),
        _precise(
            "row_change", "change when rows are scaled",
            f"The same as only a random half of the rows is scaled, {_CHANGE}",
            log=True,
        ),
        _precise(
            "turn_change", "change when turned",
            f"Largest |change of loss| as all rows turn, their norms kept, {_CHANGE}",
            log=True,
        ),
        _precise(
            "noise", "noise",
            "|Change of loss| that rounding explains, over |loss|; 1e-6 or more.",
            log=True,
        ),
    ),
)  # fmt: skip

ACTIVITY: Final = Table(
    "activity",
    "One row per `scope.count_dead_channels` and module that was looked at.",
    (
        *_KEYS,
        key(
            "layer", "string", "module",
            "Name of the module; `#2` is its second call in a forward pass.",
        ),
        key("kind", "string", "kind", "Class of the module."),
        _BATCHES,
        key("channels", "int32", "channels", "Channels of its output."),
        measured(
            "dead", "channels", "dead",
            "Channels whose output is never positive, over all samples and positions.",
            "SepNorm, section 3", dtype="int32",
        ),
        measured(
            "values", "values", "values per channel",
            "Samples times positions: values looked at in each channel.",
            dtype="int64",
        ),
    ),
)  # fmt: skip

_LION_K = "Lion-K, section 2 and table 2"

CONSTRAINT: Final = Table(
    "constraint",
    "One row per `scope.measure_constraint` and parameter tensor, `*` for all.",
    (
        *_KEYS,
        key("layer", "string", "layer", "Name of the parameter; `*`: all of them."),
        key("numel", "int64", "elements", "Number of elements."),
        Metric(
            "weight_decay", "float64", "setting", "", "weight decay",
            "Weight decay of the layer's group; NaN for `*` if groups differ.",
        ),
        _precise(
            "constraint_norm", "constraint norm",
            "Size of weight_decay * weight in the norm of K's constraint, which holds "
            "where it is at most 1; for Lion weight_decay * max|weight|.", _LION_K,
            log=True,
        ),
        _precise(
            "conjugate", "K*",
            "K*(weight_decay * weight); infinite outside of the constraint.", _LION_K,
        ),
        _precise("momentum_k", "K(momentum)", "K of the momentum.", _LION_K),
        _precise(
            "momentum_weight", "<momentum, weight>",
            "Inner product of the weight and the momentum, which tracks minus the "
            "gradient.",
        ),
        _precise("loss", "loss", "The loss that was given."),
        _precise(
            "lyapunov", "Lyapunov H",
            "What Lion-K descends where the loss alone may rise; for `*`, with the "
            "loss of the whole data set.", "Lion-K, theorem 4.1",
        ),
    ),
)  # fmt: skip
