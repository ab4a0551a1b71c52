from dynoscope import open_run
from dynoscope.dashboard.controls import (
    Link,
    layer_options,
    metric_options,
    preferred_layer,
    preferred_scalar,
    scalar_options,
)
from dynoscope.dashboard.plots import layer_metrics
from dynoscope.dashboard.state import RunState
from tests.dashboard.runs import WrittenRun


def test_empty_link() -> None:
    assert Link.of("") == Link.of(None) == Link([], None, None, [])


def test_choices_of_a_run(written: WrittenRun) -> None:
    state = RunState(open_run(written.path))
    state.refresh()
    states = {"one": state}
    names = [
        item["value"] for group in layer_options(states) for item in group["items"]
    ]
    run = open_run(written.path)
    assert names == [*run.roll_ups, *run.layer_names]
    assert preferred_layer(states) == "a.weight"
    assert scalar_options(states) == ["loss", "dynoscope/hook_seconds"]


def test_preferred_scalar() -> None:
    assert preferred_scalar(["acc", "loss", "val_loss"]) == "loss"
    assert preferred_scalar(["acc", "val_loss"]) == "val_loss"
    assert preferred_scalar(["acc"]) == "acc"
    assert preferred_scalar([]) is None


def test_each_metric_is_offered_once() -> None:
    names = [item["value"] for group in metric_options() for item in group["items"]]
    assert sorted(names) == sorted(layer_metrics())
