from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna import create_study
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from afi_search.space import Architecture, Space, SpaceFile
from afi_search.space.schema import StageAxes
from tests.space.strategies import stage_axes

spaces = st.builds(
    lambda one, rest: Space(SpaceFile(backbone="resnet20", stages={1: one, "all": rest})),
    stage_axes,
    stage_axes,
)


@given(spaces)
@settings(deadline=None, max_examples=25)
def test_size_by_formula_is_size_by_enumeration(space: Space) -> None:
    if space.size > 50_000:
        return
    listed = list(space.architectures())

    assert len(listed) == space.size
    assert len(set(listed)) == space.size


@given(spaces, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_what_is_sampled_is_in_the_space_and_its_answers_give_it_again(
    space: Space, seed: int
) -> None:
    trial = create_study(sampler=RandomSampler(seed=seed)).ask()
    architecture = space.sample(trial)

    assert architecture in space
    answers = space.answers(architecture)
    assert str(architecture) in space and space.answers(str(architecture)) == answers
    assert list(space.neighbours(str(architecture))) == list(space.neighbours(architecture))
    assert space.sample(FixedTrial({name: value for name, (value, _) in answers.items()})) == (
        architecture
    )
    assert set(answers) == set(trial.params)
    assert all(value in options for value, options in answers.values())


@given(spaces, st.data())
@settings(deadline=None, max_examples=50)
def test_each_position_has_its_own_architecture(space: Space, data: st.DataObject) -> None:
    one = data.draw(st.integers(0, space.size - 1))
    other = data.draw(st.integers(0, space.size - 1))

    assert space[one] in space
    assert (space[one] == space[other]) == (one == other)
    with pytest.raises(IndexError, match="there is none at"):
        space[space.size]


def test_enumeration_and_positions_agree() -> None:
    axes = StageAxes(width=("off", "base", "B"), ratio=(4, 16), scorer=("block", "stage"))
    space = Space(SpaceFile(backbone="resnet20", stages={"all": axes}))

    assert [space[i] for i in range(space.size)] == list(space.architectures())


def test_choices_that_are_listed_are_one_question_a_stage() -> None:
    axes = StageAxes(choice=("off", "base-r4", "B-r16-eca"))
    space = Space(SpaceFile(backbone="resnet20", stages={"all": axes}))
    options = ["off", "base-r4", "B-r16-eca"]

    assert space.size == 27
    assert space.answers(Architecture.parse("resnet20(off, B-r16-eca, base-r4)")) == {
        "stage1.choice": ("off", options),
        "stage2.choice": ("B-r16-eca", options),
        "stage3.choice": ("base-r4", options),
    }
    assert Architecture.parse("resnet20(base-r4-eca)") not in space


def test_resnet_space_counts_each_network_once() -> None:
    """81 spellings a stage; in stage 1 base r8 and r16 are the same 10 networks."""
    space = Space.load("spaces/resnet.yaml", "smoke")

    assert space.size == 71 * 81 * 81


def test_an_architecture_outside_the_space_has_no_answers() -> None:
    space = Space(SpaceFile(backbone="resnet20", stages={"all": StageAxes(width=("off",))}))
    outside = Architecture.parse("resnet20(B-r16)")

    assert outside not in space
    assert Architecture.parse("resnet32") not in space
    assert space.answers(outside) == {}


def test_a_list_is_a_space() -> None:
    texts = ("resnet20", "resnet32(base-r4)", "resnet20(B-r16)")
    space = Space(SpaceFile(architectures=texts))

    assert [str(a) for a in space.architectures()] == list(texts)
    assert space.size == 3
    assert str(space.sample(FixedTrial({"architecture": "resnet32(base-r4)"}))) == texts[1]
