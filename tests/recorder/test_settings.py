"""Hyperparameters along some steps, as the groups' states have them."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dynoscope import theory
from dynoscope.measurement import GroupState
from dynoscope.recorder.settings import Settings

numbers = st.floats(0.0, 0.99)
states = st.builds(
    GroupState,
    lr=numbers,
    weight_decay=numbers,
    momentum=numbers | st.just(math.nan),
    nesterov=st.booleans(),
    maximize=st.booleans(),
)
batches = st.integers(1, 4).flatmap(
    lambda groups: st.lists(st.tuples(*[states] * groups), min_size=1, max_size=5)
)


@given(batches)
def test_every_field_has_the_states_values(batch: list[tuple[GroupState, ...]]) -> None:
    settings = Settings(batch)
    for name in GroupState._fields:
        wanted = [[float(getattr(state, name)) for state in step] for step in batch]
        np.testing.assert_array_equal(settings[name], wanted)


@given(batches)
def test_layers_get_the_arguments_of_their_groups(
    batch: list[tuple[GroupState, ...]],
) -> None:
    settings = Settings(batch)
    groups = np.array([len(batch[0]) - 1, 0, len(batch[0]) - 1])
    of_layers = settings.of_layers(groups)
    for layer, group in enumerate(groups):
        of_group = settings.of_group(group)
        assert of_group.keys() == of_layers.keys()
        for name in of_group.keys() - {"betas"}:
            assert of_group[name].shape == (len(batch), 1)
            np.testing.assert_array_equal(
                of_group[name][:, 0], of_layers[name][:, layer]
            )


def test_theory_takes_the_arguments_of_a_group() -> None:
    adamw = GroupState(lr=0.01, weight_decay=0.5, beta1=0.9, beta2=0.99)
    sgd = GroupState(lr=0.1, weight_decay=0.01, momentum=0.9, nesterov=True)
    settings = Settings([(adamw, sgd), (adamw._replace(lr=0.02), sgd)])
    found = theory.equilibrium("adamw", numel=64, **settings.of_group(0))
    for step, lr in enumerate((0.01, 0.02)):
        wanted = theory.equilibrium(
            "adamw", numel=64, lr=lr, weight_decay=0.5, betas=(0.9, 0.99)
        )
        assert found.weight_norm[step] == wanted.weight_norm
    assert settings.of_group(0)["momentum"].tolist() == [[0.0], [0.0]]  # it has none
    given = settings.of_group(1)
    assert given["betas"] is None
    assert given["nesterov"].all()
    assert settings.of_group(1) is given  # made once for all who ask
