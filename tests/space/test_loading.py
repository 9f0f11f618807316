from __future__ import annotations

import re
from pathlib import Path

import pytest

from afi_search.space import Space, SpaceFileError
from afi_search.space.loading import SpaceDocument

GOOD = """
backbone: resnet32
stages:
  all: {width: [off, base], ratio: [4]}
"""


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> Path:
        path = tmp_path / "space.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def mistakes(path: Path) -> list[str]:
    with pytest.raises(SpaceFileError) as error:
        SpaceDocument.read(path)
    return str(error.value).splitlines()


def test_every_mistake_is_told_at_once_with_its_line_and_what_would_be_right(write) -> None:
    path = write(
        """backbone: resnet33
stages:
  all: {width: [off, bse], ratio: [4, 0], atention: [se]}
constraints: {macs: 80X}
recipe: {epochs: many, lr: -1, shedule: cosine}
search:
  trials: 0
  sampler: tpee
presets:
  smoke:
    recipe: {epochs: 0}
    serch: {trials: 3}
"""
    )
    expected = [
        (1, "backbone", "Did you mean 'resnet32'?"),
        (3, "stages.all.width.1", "'bse' must be one of off, base, B. Did you mean 'base'?"),
        (3, "stages.all.ratio.1", "0 must be greater than or equal to 1"),
        (3, "stages.all.atention", "unknown key. Did you mean 'attention'?"),
        (4, "constraints.macs", "'80X' must be a whole number, like 80M or 470k"),
        (5, "recipe.epochs", "'many' must be a whole number"),
        (5, "recipe.lr", "-1 must be greater than 0"),
        (5, "recipe.shedule", "unknown key. Did you mean 'schedule'?"),
        (7, "search.trials", "0 must be greater than or equal to 1"),
        (
            8,
            "search.sampler",
            "unknown sampler 'tpee'. Did you mean 'tpe'? There are: known-cost, tpe, "
            "tpe-multivariate, nsga2, gp, random, grid",
        ),
        (11, "presets.smoke.recipe.epochs", "0 must be greater than or equal to 1"),
        (12, "presets.smoke.serch", "unknown key. Did you mean 'search'?"),
    ]

    told = mistakes(path)

    assert len(told) == len(expected)
    for line, (number, key, what) in zip(told, expected, strict=True):
        assert line.startswith(f"{path}:{number}: {key}: ")
        assert what in line


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        ("objectives: [macs]", "objectives: accuracy must be among them"),
        ("search: {pruner: asha}", "search.pruner: asha looks at accuracy alone"),
        (
            "objectives: [accuracy]\nsearch: {pruner: mo-asha}",
            "search.pruner: mo-asha compares several objectives",
        ),
        (
            "recipe: {epochs: 5}\nsearch: {pruner: {name: mo-asha, grace_period: 5}}",
            "search.pruner.grace_period: 5 must be less than recipe.epochs, 5",
        ),
        (
            "data: cifar100\npresets: {smoke: {data: {name: digits}}}",
            "data: 'cifar100' must be a mapping",
        ),
        ("presets: {smoke: {data: digits}}", "presets.smoke.data: 'digits' must be a mapping"),
        ("presets: 5", "presets: 5 must be a mapping"),
        ("presets: {smoke: 3}", "presets.smoke: 3 must be a mapping"),
        ("1: x", "keys should be strings"),
        ("x: \x01", "is not YAML"),
        ("recipe: {lr: .inf}", "recipe.lr: inf"),
        (
            "objectives: [accuracy, watts]",
            "unknown objective 'watts'. There are: accuracy, macs, params, memory",
        ),
        ("search: {first: [resnet20]}", "search.first.0: resnet20 is not a resnet32"),
        ("search: {first: [resnet32, resnet32(off)]}", "resnet32 more than once"),
        (
            "promote: {backbone: resnet56, stages: [1, 4]}",
            "promote.stages: resnet56 has 3 stages and 2 are given",
        ),
        (
            "promote: {backbone: resnet56, stages: [1, 4, 1]}",
            "promote.stages.1: resnet32 has only stages 1 to 3",
        ),
        ("data: {train_subset: 32}", "data.train_subset: must be at least recipe.batch_size, 64"),
        ("architectures: [resnet32]", "backbone: 'architectures' lists what to train"),
        ("name: ../x", "name: '../x' is no name; write up to 100 letters, digits"),
        ("recipe: 3", "recipe: 3 must be a mapping of epochs"),
        ("objectives: accuracy", "objectives: 'accuracy' must be a list, like [accuracy]"),
        ("backbone: resnet20", "is not YAML"),
    ],
)
def test_parts_must_fit_each_other(write, addition: str, said: str) -> None:
    assert said in "\n".join(mistakes(write(f"{GOOD}{addition}\n")))


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("{1: {width: [off]}}", "stages: nothing is said of stage 2, 3"),
        ("{all: {width: [off]}, 4: {width: [B]}}", "stages.4: resnet32 has stages 1 to 3"),
        ("{all: {width: []}}", "stages.all.width: [] must list at least one"),
        ("{all: {width: [B, B]}}", "stages.all.width: B more than once"),
        ("{all: {ratio: [4]}}", "stages.all: name the widths, like 'width: [off, base]', or list"),
        ("{all: {choice: [off], ratio: [2]}}", "stages.all: 'choice' lists what may be chosen, so"),
        ("{all: {choice: [off, b-r4]}}", "stages.all.choice.1: 'b-r4': 'b' is not a width"),
    ],
)
def test_stages_must_be_those_of_the_backbone(write, stages: str, said: str) -> None:
    assert said in "\n".join(mistakes(write(f"backbone: resnet32\nstages: {stages}\n")))


def test_a_list_of_nothing_but_mistakes_is_not_also_said_to_be_empty(write) -> None:
    stages = "{all: {width: [B], ratio: [-4]}}"
    (told,) = mistakes(write(f"backbone: resnet32\nstages: {stages}\n"))
    assert "stages.all.ratio.0: -4 must be greater than or equal to 1" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backbone: [resnet32", "is not YAML"),
        ("- resnet32", "must be a mapping"),
        ("", "must be a mapping"),
        ("stages: {all: {width: [off]}}", "backbone: is missing"),
    ],
)
def test_what_is_no_space_file(write, text: str, said: str) -> None:
    assert said in "\n".join(mistakes(write(text)))


@pytest.mark.parametrize(
    ("old", "new"),
    [("grace", "grace_period"), ("reduction", "reduction_factor"), ("peers", "min_trials")],
)
def test_a_key_of_before_is_answered_with_its_new_name(write, old: str, new: str) -> None:
    (told,) = mistakes(write(f"{GOOD}search: {{pruner: {{name: mo-asha, {old}: 4}}}}\n"))
    assert f"search.pruner.{old}: unknown key. Did you mean {new!r}?" in told


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "resnet.yaml").write_text(GOOD)

    with pytest.raises(SpaceFileError, match=r"no such file\. Did you mean 'resnet\.yaml'"):
        SpaceDocument.read(tmp_path / "resnt.yaml")


def test_a_space_file_that_is_shipped_is_named_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Space.load("resnet110").file.backbone == "resnet110"
    with pytest.raises(SpaceFileError, match=r"no such file\. Did you mean 'resnet110'"):
        Space.load("spaces/resnet110.yaml")

    (tmp_path / "resnet110").write_text(GOOD)
    assert Space.load("resnet110").file.backbone != "resnet110"


def test_numbers_can_be_written_short(write) -> None:
    file = Space.load(write(f"{GOOD}constraints: {{macs: 0.5G, params: 470k}}\n")).file

    assert (file.constraints.macs, file.constraints.params) == (500_000_000, 470_000)


def test_a_preset_replaces_keys_and_leaves_the_others(write) -> None:
    path = write(
        f"{GOOD}recipe: {{epochs: 9, lr: 0.5}}\n"
        "presets:\n  quick: {note: for a look, recipe: {epochs: 2}, search: {trials: 4}}\n"
    )

    document = SpaceDocument.read(path)
    assert list(document.presets) == ["quick"]
    assert document.notes == {"quick": "for a look"}
    plain, quick = document.resolve(), Space.load(path, "quick").file
    assert (plain.recipe.epochs, plain.recipe.lr, plain.search.trials) == (9, 0.5, 100)
    assert (quick.recipe.epochs, quick.recipe.lr, quick.search.trials) == (2, 0.5, 4)
    with pytest.raises(SpaceFileError, match="Did you mean 'quick'"):
        Space.load(path, "quik")


@pytest.mark.parametrize("path", sorted(Path("spaces").glob("*.yaml")), ids=lambda p: p.name)
def test_every_space_file_of_the_project_is_right(path: Path) -> None:
    for preset in [None, *SpaceDocument.read(path).presets]:
        assert Space.load(path, preset).size > 0


def test_settings_come_before_file_and_preset_and_the_stages_keep_their_numbers() -> None:
    document = SpaceDocument.read("spaces/resnet.yaml")
    settings = {"search.trials": 7, "recipe.epochs": 3, "stages.2.width": ["off", "B"]}
    file = document.resolve("smoke", settings)
    assert (file.search.trials, file.recipe.epochs, file.recipe.batch_size) == (7, 3, 32)
    assert file.search.pruner == document.resolve("smoke").search.pruner
    assert file.stages[2].width == ("off", "B")
    assert file.stages["all"] == document.plain.stages["all"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"recipe.epochs": "many"}, "--set: recipe.epochs: 'many' must be a whole number"),
        ({"recipe.epoch": 3}, "--set: recipe.epoch: unknown key. Did you mean 'epochs'?"),
        ({"recipe.epochs": 2}, "--set: search.pruner.grace_period: 2 must be less than"),
        ({"backbone.name": "x"}, "--set: backbone.name: backbone is 'resnet32'; set backbone"),
    ],
)
def test_a_wrong_setting_is_told_with_its_key(settings: dict[str, object], told: str) -> None:
    document = SpaceDocument.read("spaces/resnet.yaml")
    with pytest.raises(SpaceFileError, match=re.escape(told)):
        document.resolve("smoke", settings)


def test_a_link_to_nowhere_is_not_its_own_correction(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("gone.yaml")
    with pytest.raises(SpaceFileError, match=r"a\.yaml: cannot be read: .*No such file") as error:
        SpaceDocument.read(tmp_path / "a.yaml")
    assert "Did you mean" not in str(error.value)
