"""One metric, one entry: registry, code and files agree."""

import pytest

from dynoscope import theory
from dynoscope.errors import DynoscopeError
from dynoscope.measurement import GroupState
from dynoscope.metrics.derive import LAYER_METRICS
from dynoscope.metrics.full_gradient import FULL_GRADIENT_METRICS
from dynoscope.metrics.neurons import NEURON_METRICS
from dynoscope.metrics.normalization import NORMALIZATION_METRICS
from dynoscope.recorder.sensitivity import EFFECTIVE_PREDICTIONS
from dynoscope.schema import TABLES, metric
from dynoscope.schema.arrow import arrow_schema


def test_every_computed_metric_has_an_entry_and_back() -> None:
    measured = {*LAYER_METRICS, "effective_weight_decay", "kkt_gap"}
    assert set(TABLES["layers"].names("measured")) == measured
    assert tuple(TABLES["neurons"].names("measured")) == NEURON_METRICS
    assert tuple(TABLES["normalization"].names("measured")) == NORMALIZATION_METRICS
    full = TABLES["full_gradients"].names("measured")
    assert set(full) == {"loss", *FULL_GRADIENT_METRICS}
    predicted = {f"pred_{name}" for name in theory.Equilibrium._fields}
    predicted |= {f"pred_effective_{name}" for name in EFFECTIVE_PREDICTIONS}
    carried = {f"traj_{name}" for name in theory.Trajectory._fields}
    assert set(TABLES["layers"].names("predicted")) == predicted | carried
    assert set(TABLES["groups"].names("setting")) <= set(GroupState.__annotations__)


def test_entries_explain_themselves() -> None:
    for table in TABLES.values():
        assert len(set(table.names())) == len(table.columns)
        for column in table.columns:
            assert column.description.endswith((".", "none.", "JSON."))
            assert column.label


def test_predictions_name_what_they_predict() -> None:
    measured = set(TABLES["layers"].names("measured"))
    of = {c.name: c.of for c in TABLES["layers"].columns if c.role == "predicted"}
    assert of.pop("pred_half_life") == ""
    assert set(of.values()) <= measured


def test_metric_docstrings_are_there() -> None:
    for function in LAYER_METRICS.values():
        assert function.__doc__


def test_names_that_others_rely_on() -> None:
    assert TABLES["layers"].names()[:6] == [
        "step", "wall_time", "layer", "numel", "weight_norm", "weight_max"
    ]  # fmt: skip
    wanted = """
        grad_l1 grad_l2 grad_ratio grad_density momentum_norm update_norm update_ratio
        angular_update weight_grad_cos momentum_grad_cos update_grad_cos unmoved_share
        nonfinite lr weight_decay pred_weight_norm pred_angular_update pred_update_rms
        pred_half_life traj_weight_norm traj_angular_update
    """
    for name in wanted.split():
        assert metric(name).name == name


def test_arrow_schemas_carry_units() -> None:
    for name, table in TABLES.items():
        schema = arrow_schema(name)
        assert schema.names == table.names()
        for column in table.columns:
            metadata = schema.field(column.name).metadata
            assert metadata[b"unit"].decode() == column.unit


def test_a_wrong_name_lists_the_choices() -> None:
    with pytest.raises(DynoscopeError, match=r"no column 'norm'.*weight_norm"):
        metric("norm")
    with pytest.raises(DynoscopeError, match=r"no table 'x'.*layers"):
        metric("norm", "x")
