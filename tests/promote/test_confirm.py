from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import afi_search
from afi_search.cli.main import app
from afi_search.errors import UserError
from afi_search.model.from_checkpoint import read_checkpoint
from afi_search.promote.confirm import (
    confirm_study,
    confirmation_file,
    fresh_seeds,
    to_confirm,
)
from afi_search.promote.confirm_results import (
    confirmed_table,
    read_confirmed,
    write_confirmed,
)
from afi_search.search.conductor import Conductor
from afi_search.search.proposer import ListedProposer
from afi_search.search.pruners import make_pruner
from afi_search.space import Architecture, SpaceFile
from afi_search.space.schema import Confirm
from afi_search.study import Ledger
from afi_search.study.folder import CONFIRM, StudyError, StudyFile
from afi_search.study.study import Study
from tests.search.studies import CLASSES, PIXELS, conductor_for, open_study, play, space_file

COST = afi_search.measure


def searched_study(folder: Path, **changes: Any) -> SpaceFile:
    """A finished search by formula, in its folder."""
    changes = {"search": {"trials": 12, "pruner": {"name": "none"}, "seed": 5}, **changes}
    file = space_file(**changes)
    _, conductor = conductor_for(file, folder)
    play(conductor)
    return file


def test_the_front_and_the_baselines_are_confirmed(tmp_path: Path) -> None:
    searched_study(tmp_path)
    front = afi_search.front(Ledger.open(tmp_path).records())
    origins = to_confirm(Study.open(tmp_path), Confirm())
    of_front = [str(a) for a, origin in origins.items() if origin == "front"]

    assert of_front == list(front["architecture"])
    for baseline in ("resnet20", "resnet20(base-r4)", "resnet20(B-r16)"):
        assert origins[Architecture.parse(baseline)] in ("baseline", "front")
    without = to_confirm(Study.open(tmp_path), Confirm(baselines=False))
    assert set(without.values()) == {"front"}


@pytest.mark.parametrize("searched_too", [True, False])
def test_baselines_that_break_the_constraints_are_not_confirmed(
    tmp_path: Path, searched_too: bool
) -> None:
    baselines = Architecture.baselines("resnet20")
    macs = {each: COST(each, num_classes=CLASSES, image_size=PIXELS).macs for each in baselines}
    limit = sorted(macs.values())[1]
    search = {"trials": 6, "pruner": {"name": "none"}, "baselines": searched_too}
    searched_study(tmp_path, constraints={"macs": limit}, search=search)
    origins = to_confirm(Study.open(tmp_path), Confirm())

    kept = [each for each in baselines if macs[each] <= limit]
    assert len(kept) == len(baselines) - 1
    assert [each for each in baselines if each in origins] == kept


def test_top_takes_the_most_accurate_of_the_front(tmp_path: Path) -> None:
    searched_study(tmp_path)
    front = afi_search.front(Ledger.open(tmp_path).records())
    assert len(front) > 1
    origins = to_confirm(Study.open(tmp_path), Confirm(top=1, baselines=False))

    assert [str(a) for a in origins] == [front.set_index("architecture")["accuracy"].idxmax()]


def test_what_is_named_takes_the_place_of_the_front(tmp_path: Path) -> None:
    searched_study(tmp_path)
    named = Architecture.parse("resnet20(base-r8-se)")
    origins = to_confirm(Study.open(tmp_path), Confirm(), [named])

    assert "front" not in origins.values()
    assert origins[named] == "named"
    assert set(Architecture.baselines("resnet20")) < set(origins)


def test_a_study_without_a_front_has_nothing_to_confirm(tmp_path: Path) -> None:
    conductor_for(space_file(), tmp_path)
    open_study(tmp_path, StudyFile("study", "", "", space_file(), {}))
    with pytest.raises(UserError, match="there is no front to confirm"):
        to_confirm(Study.open(tmp_path), Confirm())


def test_seeds_are_never_the_searchs_own() -> None:
    assert fresh_seeds(5, 3) == [6, 7, 8]


def confirmation(folder: Path, seeds: int, texts: list[str]) -> tuple[Ledger, Conductor]:
    folder.mkdir(exist_ok=True)
    origins = {Architecture.parse(text): "front" for text in texts}
    file = confirmation_file(folder, space_file(), Confirm(seeds=seeds), origins)
    open_study(folder, StudyFile("c", "", "", file, {}), may_change=("architectures",))
    ledger = Ledger.open(folder)
    proposer = ListedProposer(
        origins, fresh_seeds(0, seeds), lambda a: COST(a, num_classes=10, image_size=32)
    )
    pruner = make_pruner(file)
    short = file.model_copy(update={"recipe": file.recipe.model_copy(update={"epochs": 2})})
    return ledger, Conductor(ledger, short, proposer, pruner)


def test_every_architecture_is_trained_once_a_seed_and_no_more(tmp_path: Path) -> None:
    texts = ["resnet20", "resnet20(B-r4)"]
    ledger, conductor = confirmation(tmp_path, 2, texts)
    play(conductor)
    assert [(t.user_attrs["architecture"], t.user_attrs["seed"]) for t in ledger.trials()] == [
        ("resnet20", 1),
        ("resnet20(B-r4)", 1),
        ("resnet20", 2),
        ("resnet20(B-r4)", 2),
    ]

    _, again = confirmation(tmp_path, 2, texts)
    assert not again.has_next
    ledger, more = confirmation(tmp_path, 3, [*texts, "resnet20(base-r4)"])
    play(more)
    pairs = [(t.user_attrs["architecture"], t.user_attrs["seed"]) for t in ledger.trials()]
    assert len(pairs) == len(set(pairs)) == 9


def test_only_what_is_tested_is_in_the_table(tmp_path: Path) -> None:
    ledger, conductor = confirmation(tmp_path, 2, ["resnet20", "resnet20(base-r4)"])
    play(conductor)
    assert confirmed_table(ledger.trials(), {}).empty
    for number, accuracy in enumerate((0.70, 0.60, 0.702, 0.602)):
        ledger.note_tested(number, accuracy)
    table = confirmed_table(ledger.trials(), Ledger.open(tmp_path).tested())

    assert list(table["architecture"]) == ["resnet20(base-r4)", "resnet20"]
    assert list(table["test"]) == pytest.approx([0.601, 0.701])
    assert list(table["verdict"]) == ["unrivalled", "stands"]
    assert (table["test_low"] < table["test"]).all()
    write_confirmed(table, tmp_path)
    document = json.loads((tmp_path / "confirmed.json").read_text())
    assert document["confirmed"][1]["architecture"] == "resnet20"
    assert "multiply-accumulates" in document["conventions"]["macs"]


QUICK = {"epochs": 1, "batch_size": 128, "lr": 0.1, "precision": "fp32"}


@pytest.mark.slow
def test_a_confirmation_trains_tests_and_exports(tmp_path: Path) -> None:
    asked = {"top": 1, "seeds": 2, "baselines": False, "recipe": QUICK, "train_subset": 256}
    file = searched_study(tmp_path, recipe={"epochs": 1}, confirm=asked)
    before = Ledger.open(tmp_path).records()
    wanted = Confirm.model_validate(asked)
    study = Study.open(tmp_path)
    table = confirm_study(study, **dict(wanted))
    assert table.equals(read_confirmed(study))

    assert list(table["seeds"]) == [2]
    assert 0 < table["test"].item() < 1
    assert Ledger.open(tmp_path).records().equals(before)
    own = tmp_path / CONFIRM
    assert (own / "confirmed.csv").is_file()
    model = read_checkpoint(str(own / "checkpoints" / "00001"))
    assert model.facts.metrics["test accuracy"] == Ledger.open(own).tested()[1]
    assert model.facts.training["seed"] == file.search.seed + 2

    assert confirm_study(study, **dict(wanted)).equals(table)
    assert len(Ledger.open(own).trials()) == 2
    [row] = json.loads(CliRunner().invoke(app, ["confirm", str(tmp_path), "--json"]).stdout)
    assert row["architecture"] == table["architecture"].item()
    assert (row["test"], row["seeds"]) == (table["test"].item(), 2)
    other = wanted.model_copy(update={"recipe": wanted.recipe.model_copy(update={"lr": 0.2})})
    with pytest.raises(StudyError, match=r"recipe\.lr: 0\.1 in the study, 0\.2 now"):
        confirm_study(study, **dict(other))
