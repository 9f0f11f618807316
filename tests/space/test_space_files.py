"""The space files that come with the project."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from afi_search.cost import SpaceCosts
from afi_search.data import dataset_spec, spec_of
from afi_search.search.prepare import require_feasible
from afi_search.space import Architecture, Space, StageChoice, get_backbone
from afi_search.space.loading import SpaceDocument
from afi_search.study.paper import paper_results
from tests.typed import there

SPACES = Path(__file__).parents[2] / "spaces"
BENCHMARK = "afi-bench-16.yaml"
EXAMPLES = {"digits.yaml", "resnet20.yaml"}  # small enough for a laptop
FILES = sorted({path.name for path in SPACES.glob("*.yaml")} - {BENCHMARK} - EXAMPLES)


def costs_of(name: str) -> SpaceCosts:
    space = Space(SpaceDocument.read(SPACES / name).resolve())
    source = dataset_spec(space.file.data.name)
    return SpaceCosts(space, num_classes=source.num_classes, image_size=source.image_size)


def test_there_is_a_space_for_each_family_of_the_paper():
    assert {Space.load(SPACES / name).file.backbone for name in FILES} == {
        "resnet32",
        "resnet110",
        "resnet50",
        "resnext29",
        "mobilenetv2",
        "shufflenetv2",
        None,
    }


@pytest.mark.parametrize("name", FILES)
def test_every_preset_is_right_and_says_what_it_is_good_for(name):
    document = SpaceDocument.read(SPACES / name)
    assert {"smoke", "short", "paper"} <= set(document.presets)
    assert all(document.notes.values())


@pytest.mark.parametrize(("name", "preset"), [("digits.yaml", None), ("resnet20.yaml", "smoke")])
def test_an_example_is_small(name, preset):
    document = SpaceDocument.read(SPACES / name)
    assert all(document.notes.values())
    file = document.resolve(preset)
    assert file.search.trials * file.recipe.epochs <= 240
    assert spec_of(file.data).image_size == 16


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_limits_leave_the_plain_backbone_and_shut_something_out(name):
    costs = costs_of(name)
    require_feasible(SPACES / name, costs)
    backbone = costs.space.file.backbone
    if backbone is not None:
        assert costs.allow(costs.of(Architecture.plain(backbone)))
        assert costs.space.size // 4 < there(costs.feasible) < costs.space.size


@pytest.mark.parametrize("name", FILES)
def test_the_papers_own_choices_can_be_found(name):
    space = Space.load(SPACES / name)
    if space.file.backbone is not None:
        shapes = get_backbone(space.file.backbone)
        for width, ratio in shapes.ratios.items():
            assert Architecture.uniform(shapes.name, StageChoice(width, ratio)) in space


@pytest.mark.parametrize("name", [name for name in FILES if name != "paper.yaml"])
def test_winners_can_be_promoted_to_imagenet(name):
    promote = Space.load(SPACES / name).file.promote
    assert promote is not None
    assert 224 in get_backbone(there(promote.backbone)).image_sizes


def test_the_papers_list_is_all_that_it_trained_on_cifar100():
    listed = [
        str(architecture) for architecture in Space.load(SPACES / "paper.yaml").architectures()
    ]
    rows = [row.architecture for row in paper_results() if row.dataset.name == "cifar100"]
    assert listed[: len(rows)] == rows
    assert len(listed) == len(rows) + 6
    assert Space.load(SPACES / "paper.yaml").file.search.trials == len(listed)


def test_the_benchmarks_space_is_the_complete_grid_at_16_pixels():
    space = Space(SpaceDocument.read(SPACES / BENCHMARK).resolve())
    choices = ["off", "base-r4", "base-r4-eca", "B-r16", "B-r16-eca"]
    assert [architecture.choice_texts for architecture in space.architectures()] == [
        list(chosen) for chosen in product(choices, repeat=3)
    ]
    assert (space.file.search.sampler, space.file.search.pruner.name) == ("grid", "none")
    assert space.file.search.trials == space.size == 125
    assert spec_of(space.file.data).image_size == 16
