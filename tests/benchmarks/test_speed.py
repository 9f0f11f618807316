"""What the speed benchmarks compare is the same network, and what they say of it is right."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from afi_search.nn import build
from afi_search.space import Architecture, Recipe, Space, SpaceFile
from benchmarks.literal import Literal, with_torchs_norms
from benchmarks.recipe_rank import CHANGES, LONG, SHORT, agreement, pick, recipes
from benchmarks.rounds import against, in_turn_apart


def test_the_literal_network_is_ours_to_rounding():
    model = build(
        Architecture.parse("resnet20(base-r4, B-r8-se, base-r2)"), num_classes=10, image_size=32
    ).double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    parameters = list(model.parameters())

    ours, literal = model(images), Literal(model)(images)

    torch.testing.assert_close(ours, literal)
    cotangent = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, parameters, cotangent),
        torch.autograd.grad(literal, parameters, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_the_copied_network_has_torchs_batch_norms_and_the_same_numbers():
    ours = build(Architecture.parse("resnet20(base-r4)"), num_classes=10, image_size=32).double()
    copied = with_torchs_norms(copy.deepcopy(ours))
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64).to(memory_format=torch.channels_last)

    assert {type(part) for part in copied.modules() if "Norm" in type(part).__name__} == {
        nn.BatchNorm2d
    }
    torch.testing.assert_close(ours(images), copied(images))


def test_ratios_are_those_of_each_round():
    found = against([2.0, 6.0, 3.0], [1.0, 2.0, 1.0])

    assert found["ratio"] == 3.0
    assert found["median_s"] == 3.0
    assert found["ratio_of_minima"] == 2.0


def noting_process(file: Path) -> Callable[[], None]:
    """Return a contender that adds a line to the file: its process, and torch's threads there."""

    def run() -> None:
        with file.open("a") as lines:
            lines.write(f"{os.getpid()} {torch.get_num_threads()}\n")

    return run


def test_contenders_apart_have_a_process_each_for_all_rounds(tmp_path):
    files = {name: tmp_path / name for name in ("ours", "theirs")}
    makers = {name: partial(noting_process, file) for name, file in files.items()}

    seconds = in_turn_apart(makers, 3, torch.device("cpu"), warm_up=1)

    assert {name: len(of) for name, of in seconds.items()} == {"ours": 3, "theirs": 3}
    ours, theirs = (file.read_text().splitlines() for file in files.values())
    assert len(ours) == len(theirs) == 4
    assert len({*ours, *theirs}) == 2
    assert {line.split()[1] for line in ours} == {str(torch.get_num_threads())}
    assert str(os.getpid()) not in {line.split()[0] for line in (*ours, *theirs)}


def test_the_presets_changes_are_taken_back_one_by_one():
    named = dict(recipes(Path("spaces/resnet.yaml"), [10], 50, 256, "fp32", ablate=True))
    short, long = named[SHORT], named[LONG]

    for change, keys in CHANGES.items():
        without = named[f"{SHORT} without {change}"]
        fields = Recipe.model_fields
        changed = {key for key in fields if getattr(without, key) != getattr(short, key)}
        assert changed
        assert changed <= ({"batch_size", "lr"} if "batch_size" in keys else set(keys))
        assert all(getattr(without, key) == getattr(long, key) for key in keys)
        assert without.lr / without.batch_size == pytest.approx(short.lr / short.batch_size)


def test_recipes_that_order_alike_agree_and_the_interval_holds_tau():
    long = [0.1, 0.4, 0.2, 0.5, 0.3, 0.6]

    assert agreement([2 * value for value in long], long).tau == pytest.approx(1.0)
    assert agreement([-value for value in long], long).tau == pytest.approx(-1.0)
    mixed = agreement([0.2, 0.3, 0.1, 0.5, 0.4, 0.6], long)
    assert mixed.low <= mixed.tau <= mixed.high < 1.0001
    assert mixed.low < mixed.high


def test_architectures_are_picked_once_the_plain_one_first():
    axes = {"width": ["off", "base", "B"], "ratio": [4, 16]}
    space = Space(SpaceFile.model_validate({"backbone": "resnet20", "stages": {"all": axes}}))

    picked = pick(space, 20)

    assert picked[0] == Architecture.plain("resnet20")
    assert len(set(picked)) == 20
    assert picked == pick(space, 20)
