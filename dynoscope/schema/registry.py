"""Every column of every table: one metric, one entry.

A metric that is added here and in the room that computes it appears in the
files, the frames, the command line, the diff and the dashboard.
"""

from collections.abc import Mapping
from typing import Final

from dynoscope.errors import DynoscopeError
from dynoscope.schema import ondemand
from dynoscope.schema.column import LAYER as _LAYER
from dynoscope.schema.column import STEP as _STEP
from dynoscope.schema.column import Metric, Table
from dynoscope.schema.column import key as _key
from dynoscope.schema.column import measured as _measured
from dynoscope.schema.histograms import HISTOGRAMS
from dynoscope.schema.silence import SILENCE

__all__ = ["TABLES", "Metric", "Table", "metric"]


def _predicted(name: str, of: str, unit: str, label: str, description: str) -> Metric:
    source = "Kosson et al. 2024, table 1 and appendices F-I, as mended"
    return Metric(
        name, "float32", "predicted", unit, label, description, source, log=True, of=of
    )


def _carried(name: str, of: str, unit: str, label: str, description: str) -> Metric:
    source = "second moments along the schedule; see dynoscope.theory.moments"
    return Metric(
        name, "float32", "predicted", unit, label, description, source, log=True, of=of
    )


def _setting(name: str, label: str, description: str) -> Metric:
    return Metric(name, "float64", "setting", "", label, description)


_WALL_TIME = _key(
    "wall_time", "float64", "time", "When the step ended, since the epoch.", "s"
)
_LR = _setting("lr", "learning rate", "Learning rate of this step.")
_WEIGHT_DECAY = _setting(
    "weight_decay", "weight decay", "Weight decay as the optimizer takes it."
)

_LAYERS = Table(
    "layers",
    "One row per measured step and parameter tensor.",
    (
        _STEP,
        _WALL_TIME,
        _LAYER,
        _key("numel", "int64", "elements", "Number of elements."),
        _measured(
            "weight_norm", "", "weight norm",
            "l2 norm of the weight before the step.", log=True,
        ),
        _measured(
            "weight_max", "", "largest |weight|",
            "Largest absolute weight before the step.", log=True,
        ),
        _measured(
            "grad_l1", "", "gradient l1",
            "l1 norm of the gradient that the optimizer received.", log=True,
        ),
        _measured(
            "grad_l2", "", "gradient l2",
            "l2 norm of the gradient that the optimizer received.", log=True,
        ),
        _measured(
            "grad_ratio", "", "gradient l1/l2",
            "l1 over l2 norm of the gradient, between 1 and sqrt(numel).",
            "LION-rate, section 4",
        ),
        _measured(
            "grad_density", "", "gradient density",
            "grad_ratio / sqrt(numel); sqrt(2/pi) = .798 for Gaussian entries.",
            "LION-rate, section 4",
        ),
        _measured(
            "momentum_norm", "", "momentum norm",
            "l2 norm of the optimizer's momentum before the step.", log=True,
        ),
        _measured(
            "update_norm", "", "update norm",
            "l2 norm of the change of the weight, weight decay included.",
            "Kosson et al. 2024, eq. 3", log=True,
        ),
        _measured(
            "update_ratio", "", "update / weight",
            "Update norm over weight norm.", log=True,
        ),
        _measured(
            "angular_update", "rad", "angular update",
            "Angle between the weight before and after the step.",
            "Kosson et al. 2024, eq. 5", log=True,
        ),
        _measured(
            "weight_grad_cos", "", "cos(weight, gradient)",
            "Cosine between weight and gradient; 0 if scale-invariant.",
        ),
        _measured(
            "weight_update_cos", "", "cos(weight, update)",
            "Cosine between weight and update; negative where the weight shrinks.",
        ),
        _measured(
            "momentum_grad_cos", "", "cos(momentum, gradient)",
            "Cosine between the momentum before the step and the gradient.",
        ),
        _measured(
            "update_grad_cos", "", "cos(update, gradient)",
            "Cosine between update and gradient; -1 for plain gradient descent.",
        ),
        _measured(
            "scaled_grad_norm", "", "scaled gradient norm",
            "l2 norm of u = g / (sqrt(v) + eps), with Adam's second moment v.",
            "Kosson et al. 2024, appendix K", log=True,
        ),
        _measured(
            "weight_scaled_grad_cos", "", "cos(weight, scaled gradient)",
            "Cosine between weight and u = g / (sqrt(v) + eps); 0 if scale-invariant.",
            "Kosson et al. 2024, appendix K",
        ),
        _measured(
            "outside_share", "", "share outside the box",
            "Share of |w| > 1/weight_decay before the step, if that is decoupled.",
            "Lion-K, section 3",
        ),
        _measured(
            "box_share", "", "share at the edge of the box",
            "Share of |w| >= .99/weight_decay before the step, if that is decoupled.",
            "Lion-K, section 3",
        ),
        _measured(
            "unmoved_share", "", "unmoved share",
            "Share of weights that are bit for bit the same after the step.",
        ),
        _measured(
            "nonfinite", "", "non-finite entries",
            "NaN and infinite entries of gradient, momentum and weight after the step.",
        ),
        _measured(
            "kkt_gap", "", "KKT gap",
            "weight_decay <w, g> + grad_l1; at least 0 in Lion's box, 0 at a solution.",
            "LION-rate, lemma 1",
        ),
        _measured(
            "effective_weight_decay", "", "effective weight decay",
            "weight_decay + E<w, u>/E||w||^2, u the gradient as it enters an update.",
            "Kosson et al. 2024, appendix L, eq. 94",
        ),
        _setting(
            "lr", "learning rate",
            "Learning rate of this step; for Muon, of a layer of this shape.",
        ),
        _WEIGHT_DECAY,
        _predicted(
            "pred_weight_norm", "weight_norm", "", "predicted weight norm",
            "Weight norm in rotational equilibrium.",
        ),
        _predicted(
            "pred_angular_update", "angular_update", "rad", "predicted angular update",
            "Expected angle per step in rotational equilibrium.",
        ),
        _predicted(
            "pred_update_rms", "update_norm", "", "predicted update RMS",
            "Root expected squared norm of an update's gradient part.",
        ),
        _predicted(
            "pred_half_life", "", "steps", "half-life of the norm",
            "Steps in which the norm closes half its distance to equilibrium.",
        ),
        _predicted(
            "pred_effective_weight_norm", "weight_norm", "",
            "predicted weight norm, effective decay",
            "Weight norm in equilibrium at the effective weight decay; for AdamW with "
            "the scaled gradient as it is.",
        ),
        _predicted(
            "pred_effective_angular_update", "angular_update", "rad",
            "predicted angular update, effective decay",
            "Expected angle per step in equilibrium at the effective weight decay.",
        ),
        _carried(
            "traj_weight_norm", "weight_norm", "", "weight norm on schedule",
            "Weight norm predicted for this step, from the first one measured.",
        ),
        _carried(
            "traj_angular_update", "angular_update", "rad", "rotation on schedule",
            "Angle predicted for this step, from the first norm measured.",
        ),
    ),
)  # fmt: skip

_QUANTITIES = {
    "weight_norm": ("", "norm of a neuron's weights before the step"),
    "angular_update": ("rad", "angle by which the step turns a neuron's weights"),
}
_STATISTICS = {
    "p05": "5 % quantile",
    "p50": "Median",
    "p95": "95 % quantile",
    "min": "Smallest",
    "max": "Largest",
    "mean": "Mean",
    "cv": "Coefficient of variation (standard deviation over mean)",
}

_NEURONS = Table(
    "neurons",
    "One row per measured step and layer: statistics over its output rows.",
    (
        _STEP,
        _LAYER,
        *(
            _measured(
                f"{quantity}_{short}",
                "" if short == "cv" else unit,
                f"{quantity.replace('_', ' ')} {short}",
                f"{statistic} of the {meaning}, over output rows.",
                "Kosson et al. 2024, figure 1",
                log=short != "cv",
            )
            for quantity, (unit, meaning) in _QUANTITIES.items()
            for short, statistic in _STATISTICS.items()
        ),
    ),
)


def _channel_count(name: str, label: str, description: str) -> Metric:
    source = "SepNorm, section 3 and figure 2"
    return _measured(name, "channels", label, description, source, dtype="int32")


_NORMALIZATION = Table(
    "normalization",
    "One row per measured step and normalization layer, named by its bias, or weight.",
    (
        _STEP,
        _LAYER,
        _key("channels", "int32", "channels", "Channels of the layer."),
        _channel_count(
            "dead", "dead",
            "Channels that get a gradient of exactly 0, but once had one."
        ),
        _channel_count(
            "ghost", "ghost steps",
            "Dead channels that the optimizer still moves by over lr/2 beyond decay.",
        ),
        _channel_count(
            "revived", "revivals",
            "Channels whose gradient is back after ceil(2.5/(1 - beta2)) steps at 0.",
        ),
        _channel_count(
            "revived_k1", "revivals, k = 1",
            "The same after ceil(1/(1 - beta2)) steps.",
        ),
        _channel_count(
            "revived_k5", "revivals, k = 5",
            "The same after ceil(5/(1 - beta2)) steps.",
        ),
        _measured(
            "weight_q95", "", "95 % quantile of |w|",
            "95 % quantile of |w| before the step; 1/weight_decay is where Lion stops.",
            "SepNorm, section 3 and figure 2", log=True,
        ),
        _measured(
            "top5_cos", "", "cos(largest weights, their updates)",
            "Cosine of the 5 % largest |w| and their updates beyond weight decay.",
            "SepNorm, section 3 and figure 2",
        ),
    ),
)  # fmt: skip

_GROUPS = Table(
    "groups",
    "One row per measured step and parameter group of the optimizer.",
    (
        _STEP,
        _key("group", "int32", "group", "Index of the parameter group."),
        _key(
            "own_step", "int64", "own step",
            "Steps its own optimizer had taken: `step`, unless there are several.",
            "steps",
        ),
        _LR,
        _WEIGHT_DECAY,
        _setting("beta1", "beta 1", "First moment coefficient; NaN if none."),
        _setting("beta2", "beta 2", "Second moment coefficient; NaN if none."),
        _setting("momentum", "momentum", "SGD's momentum coefficient; NaN if none."),
        _setting("dampening", "dampening", "SGD's dampening."),
        _setting("nesterov", "Nesterov", "1 where SGD's momentum is Nesterov's, or 0."),
        _setting("maximize", "maximize", "1 where steps go along the gradient, or 0."),
    ),
)  # fmt: skip

_SCALARS = Table(
    "scalars",
    "What the user logs; under `dynoscope/`, its own cost and a GradScaler's scale.",
    (
        _STEP,
        _WALL_TIME,
        _key("name", "string", "name", "Name given to `scope.log`."),
        _measured("value", "", "value", "The number.", dtype="float64"),
    ),
)

_FINDINGS = Table(
    "findings",
    "What rules found in the measurements.",
    (
        _STEP,
        _LAYER,
        _key("rule", "string", "rule", "Name of the rule."),
        _key("severity", "string", "severity", "note, warning or error."),
        _key("message", "string", "message", "The finding in a sentence."),
        _key("evidence", "string", "evidence", "The numbers behind it, as JSON."),
        _key("source", "string", "source", "Paper and section of the rule."),
    ),
)

TABLES: Final[Mapping[str, Table]] = {
    table.name: table
    for table in (
        *(_LAYERS, _NEURONS, _NORMALIZATION, _GROUPS, _SCALARS, _FINDINGS),
        HISTOGRAMS,
        SILENCE,
        *(ondemand.FULL_GRADIENTS, ondemand.INVARIANCE, ondemand.ACTIVITY),
        ondemand.CONSTRAINT,
    )
}
"""Every table by name."""


def metric(name: str, table: str = "layers") -> Metric:
    """Look up a column.

    Raises:
        DynoscopeError: no such table or column; the message lists the choices.
    """
    if table not in TABLES:
        raise DynoscopeError(f"no table {table!r}; there are: {', '.join(TABLES)}")
    return TABLES[table][name]
