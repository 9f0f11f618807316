from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import afi_search
from afi_search.api import Study
from afi_search.cli.main import app as program
from afi_search.cli.study import app
from afi_search.errors import UserError
from afi_search.study import Ledger
from afi_search.study.checkpoint_location import size_of
from afi_search.study.folder import StudyError, StudyFile, only_driver
from afi_search.study.ownership import Mark, mark_at, put_mark
from afi_search.study.storage import open_storage
from afi_search.train import save
from tests import typed
from tests.search.studies import conductor_for, open_study, play, space_file
from tests.study.test_storage import database  # noqa: F401

CLI = "from afi_search.cli.main import main; main()"


def searched(folder: Path, storage: str = "sqlite", checkpoints: str = "checkpoints") -> set[int]:
    """A finished study with a checkpoint of every trial; the numbers of its front."""
    file = space_file(search={"trials": 12, "pruner": {"name": "none"}})
    folder.mkdir(parents=True, exist_ok=True)
    with Study.begin(folder, StudyFile("study", "", "", file, {}, storage, checkpoints)):
        pass
    ledger, conductor = conductor_for(file, folder, storage)
    play(conductor)
    for number in range(12):
        save({"epoch": 1}, Study.open(folder).trial_checkpoints(number))
    return set(afi_search.front(ledger.records())["number"])


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def kept(folder: Path) -> set[int]:
    location = Path(Study.open(folder).checkpoints)
    return {int(path.name) for path in location.iterdir() if path.name.isdigit()}


def test_prune_keeps_the_front_and_says_what_is_free(tmp_path: Path) -> None:
    front = searched(tmp_path)
    result = call("prune", tmp_path)

    assert result.exit_code == 0, result.output
    assert "of checkpoints deleted" in result.output
    assert front <= kept(tmp_path) < set(range(12))
    assert len(Ledger.open(tmp_path).records()) == 12
    assert Study.open(tmp_path).prune() == 0


@pytest.mark.parametrize("foreign", [(), ("notes.txt",)])
def test_a_link_to_a_study_is_the_study(tmp_path: Path, foreign: tuple[str, ...]) -> None:
    front, link = searched(tmp_path / "study"), tmp_path / "link"
    link.symlink_to("study")
    for name in foreign:
        (tmp_path / "study" / name).touch()

    assert call("prune", link).exit_code == 0
    assert front <= kept(tmp_path / "study") < set(range(12))
    assert call("rm", link, "--yes").exit_code == 0
    assert {path.name for path in tmp_path.rglob("*")} == {
        *foreign,
        *(foreign and ("study", "link")),
    }


def test_a_part_that_is_a_link_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    searched(tmp_path / "study")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study" / "confirm").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StudyError, match=r"study/confirm: is a link, and what lies elsewhere"):
        Study.open(tmp_path / "study").confirm()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_rm_deletes_a_study_and_nothing_of_another(tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    one, other = tmp_path / "one", tmp_path / "other"
    searched(one, checkpoints=shared)
    searched(other, checkpoints=shared)
    result = call("rm", one, "--yes")

    assert result.exit_code == 0, result.output
    assert not one.exists()
    assert kept(other) == set(range(12))
    assert len(Ledger.open(other).records()) == 12
    assert len(list(Path(shared).iterdir())) == 1


@pytest.mark.parametrize("is_url", [False, True])
def test_a_copy_does_not_touch_what_the_original_owns(tmp_path: Path, is_url: bool) -> None:
    shared = tmp_path / "shared"
    original, copy = tmp_path / "original", tmp_path / "copy"
    searched(original, checkpoints=shared.as_uri() if is_url else str(shared))
    shutil.copytree(original, copy)
    (location,) = shared.iterdir()
    before = sorted(location.rglob("*"))
    assert Study.open(copy).disk_use() == size_of(str(copy))
    assert Study.open(original).disk_use() == size_of(str(original)) + size_of(str(location))

    result = call("prune", copy)
    assert result.exit_code == 2
    file = StudyFile.read(copy)
    with pytest.raises(StudyError, match="of which this study is a copy"), Study.begin(copy, file):
        pass
    result = call("rm", copy, "--yes")

    assert result.exit_code == 0, result.output
    assert f"belongs to {original}, of which this study is a copy" in result.output
    assert not copy.exists()
    assert sorted(location.rglob("*")) == before
    assert call("rm", original, "--yes").exit_code == 0
    assert not original.exists()
    assert not location.exists()


def test_a_copy_on_another_disk_is_one_though_its_inode_be_the_same(tmp_path: Path) -> None:
    """Two new disks number their folders alike."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    searched(original, checkpoints=str(tmp_path / "shared"))
    (location,) = (tmp_path / "shared").iterdir()
    shutil.copytree(original, copy)
    put_mark(str(location), replace(typed.there(mark_at(str(location))), inode=copy.stat().st_ino))

    assert call("rm", copy, "--yes").exit_code == 0
    assert kept(original) == set(range(12))


def test_a_moved_study_still_owns_its_checkpoints(tmp_path: Path) -> None:
    searched(tmp_path / "here", checkpoints=str(tmp_path / "shared"))
    there = (tmp_path / "here").rename(tmp_path / "there")
    with Study.begin(there, StudyFile.read(there)):
        pass
    assert call("prune", there).exit_code == 0
    assert call("rm", there, "--yes").exit_code == 0

    assert not there.exists()
    assert not list((tmp_path / "shared").iterdir())


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_copy_on_another_machine_owns_nothing_until_it_is_said_to_have_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_moved: bool
) -> None:
    """The original cannot be seen from there; a folder seen from two machines is one, though."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    searched(original, checkpoints=str(tmp_path / "shared"))
    (location,) = (tmp_path / "shared").iterdir()
    before = sorted(location.rglob("*"))
    shutil.copytree(original, copy)
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    with Study.begin(original, StudyFile.read(original)):
        pass
    monkeypatch.undo()
    shutil.rmtree(original)

    assert call("prune", copy).exit_code == 2
    with (
        pytest.raises(StudyError, match=f"belongs to {original} on elsewhere, of which"),
        Study.begin(copy, StudyFile.read(copy)),
    ):
        pass
    if is_moved:
        assert "are now this study's" in call("repair", copy).output
        assert call("prune", copy).exit_code == 0
        assert call("rm", copy, "--yes").exit_code == 0
        assert not location.exists()
    else:
        assert call("rm", copy, "--yes").exit_code == 0
        assert sorted(location.rglob("*")) == before


@pytest.mark.parametrize("marked", ["no", "by another", "garbage"])
def test_a_study_yaml_may_name_any_folder_and_nothing_there_is_deleted(
    tmp_path: Path, marked: str
) -> None:
    searched(tmp_path / "study")
    theirs = tmp_path / "theirs"
    save({"epoch": 1}, str(theirs / "00000"))
    (theirs / "thesis.tex").write_text("years of work")
    if marked == "garbage":
        (theirs / ".afi_search-study").write_text("garbage")
    if marked == "by another":
        put_mark(str(theirs), Mark("another", "another", "/elsewhere/study.yaml"))
    path = tmp_path / "study" / "study.yaml"
    received = path.read_text().replace("checkpoints: checkpoints", f"checkpoints: {theirs}")
    path.write_text(received)
    before = sorted(theirs.rglob("*"))
    assert call("status", tmp_path / "study").exit_code == 0

    assert call("prune", tmp_path / "study").exit_code == 2
    with (
        pytest.raises(StudyError, match=f"would lie in {theirs}, which be"),
        Study.begin(tmp_path / "study", StudyFile.read(tmp_path / "study")),
    ):
        pass
    assert call("rm", tmp_path / "study", "--yes").exit_code == 0
    assert sorted(theirs.rglob("*")) == before


def test_how_far_a_study_is_is_told_where_its_checkpoints_cannot_be_reached(tmp_path: Path) -> None:
    searched(tmp_path)
    path = tmp_path / "study.yaml"
    gone = "ftp://127.0.0.1:1/checkpoints"
    path.write_text(path.read_text().replace("checkpoints: checkpoints", f"checkpoints: {gone}"))

    assert call("status", tmp_path).exit_code == 0


def test_of_marked_checkpoints_only_what_a_study_writes_is_deleted(tmp_path: Path) -> None:
    study = tmp_path / "study"
    searched(study, checkpoints=str(tmp_path / "shared"))
    (location,) = (tmp_path / "shared").iterdir()
    foreign = [location / "notes.txt", location / "00003" / "mine.pt", location / "7" / "x"]
    foreign += [study / "thesis.tex", study / "checkpoints" / "mine", study / "front.xlsx"]
    foreign += [study / "ledger.log.bak", study / "ledger.db.2026", study / "front.png" / "mine"]
    promoted = study / "promote" / "resnet50"
    foreign += [study / "promote" / "plan.md", promoted / "mine.csv", promoted / "model" / "x.onnx"]
    theirs = tmp_path / "theirs"
    save({"epoch": 1}, str(theirs / "checkpoints"))
    (theirs / "history.csv").write_text("theirs")
    before = sorted(theirs.rglob("*"))
    save({"epoch": 1}, str(promoted / "checkpoints"))
    for name in ("history.csv", "model/model.json", "model/README.md", ".lock"):
        (promoted / name).parent.mkdir(exist_ok=True)
        (promoted / name).write_text("ours")
    (study / "promote" / "linked").symlink_to(theirs)
    searched(tmp_path / "another")
    (study / "confirm").symlink_to(tmp_path / "another")
    another = sorted((tmp_path / "another").rglob("*"))
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("years of work")
    result = call("rm", study, "--yes")

    assert result.exit_code == 0, result.output
    assert all(path.exists() for path in foreign)
    assert sorted(theirs.rglob("*")) == before
    assert sorted((tmp_path / "another").rglob("*")) == another
    assert {path for path in location.rglob("*") if path.is_file()} == set(foreign[:3])
    assert {path for path in study.rglob("*") if path.is_file()} == set(foreign[3:])
    assert f"{study / 'thesis.tex'}, which no study writes" in result.output


def test_what_killed_processes_leave_is_deleted_with_the_study(tmp_path: Path) -> None:
    study, code = tmp_path / "study", uuid4()
    searched(study)
    promoted = study / "promote" / "resnet50" / "checkpoints"
    save({"epoch": 1}, str(promoted))
    left = [study / f"ledger.log.lock{code}.rename", study / ".front.csv.7.unfinished"]
    left += [study / "checkpoints" / f"resnet20.precision.{code.hex}", promoted / "resnet50.way"]
    for path in left:
        path.touch()

    assert call("rm", study, "--yes").exit_code == 0
    assert not study.exists()


def test_a_study_of_before_there_were_marks_gets_one(tmp_path: Path) -> None:
    study, space = tmp_path / "study", space_file(search={"trials": 3})
    study.mkdir()
    file = open_study(study, StudyFile("study", "", "", space, {}, checkpoints=str(tmp_path / "x")))
    play(conductor_for(space, study)[1])
    save({"epoch": 1}, Study.open(study).trial_checkpoints(0))
    (Path(file.checkpoints) / ".afi_search-study").unlink()
    (study / "study.yaml").write_text(replace(file, id="").dump())
    lines = (study / "ledger.log").read_text().splitlines(keepends=True)
    of_before = [line for line in lines if '"owner"' not in line and '"study.yaml"' not in line]
    (study / "ledger.log").write_text("".join(of_before))
    assert call("prune", study).exit_code == 2

    with Study.begin(study, StudyFile.read(study)) as opened:
        assert opened.file.id
    assert call("prune", study).exit_code == 0


@pytest.mark.parametrize("name", ["exp::2", "memory:x", "a?b#c%20{SCHEMA_VERSION}", "local::y"])
def test_a_local_path_is_no_url(tmp_path: Path, name: str) -> None:
    for study in ("exp", name):
        searched(tmp_path / study)
    before = sorted((tmp_path / "exp").rglob("*"))
    assert kept(tmp_path / name) == set(range(12))
    assert call("rm", tmp_path / name, "--yes").exit_code == 0

    assert [path.name for path in tmp_path.iterdir()] == ["exp"]
    assert sorted((tmp_path / "exp").rglob("*")) == before


def test_rm_names_what_it_deletes(tmp_path: Path) -> None:
    searched(tmp_path / "study", checkpoints=str(tmp_path / "shared"))
    (location,) = (tmp_path / "shared").iterdir()
    result = CliRunner().invoke(app, ["rm", str(tmp_path / "study")], input="n\n")

    for named in ("study.yaml", "ledger.db", f"the checkpoints in {location}"):
        assert named in result.output


def test_rm_asks_first(tmp_path: Path) -> None:
    searched(tmp_path)
    result = CliRunner().invoke(app, ["rm", str(tmp_path)], input="n\n")

    assert result.exit_code == 1
    assert len(Ledger.open(tmp_path).records()) == 12


@pytest.mark.parametrize("command", [("rm", "--yes"), ("prune",)])
def test_nothing_is_deleted_while_a_driver_is_at_work(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    searched(tmp_path)
    with only_driver(tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", CLI, "study", *command, str(tmp_path)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == 2, done.stdout + done.stderr
    assert "another driver is at work" in done.stderr
    assert kept(tmp_path) == set(range(12))


@pytest.mark.parametrize("command", [("rm", "--yes"), ("prune",)])
def test_only_a_study_is_deleted(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    result = call(*command, tmp_path)

    assert result.exit_code == 2
    assert (tmp_path / "thesis.tex").exists()


def test_rm_killed_at_any_moment_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study stays one that can be opened or deleted, until nothing of it is left."""
    searched(tmp_path / "study")
    study = Study.open(tmp_path / "study")

    unlink, count = Path.unlink, 0
    with study.held():
        while study.folder.exists():
            count += 1
            deleted: list[Path] = []

            def once(self: Path, missing_ok: bool = False, deleted: list[Path] = deleted) -> None:
                if deleted:
                    raise KeyboardInterrupt
                deleted.append(self)
                unlink(self, missing_ok)

            monkeypatch.setattr(Path, "unlink", once)
            try:
                study.remove()
            except KeyboardInterrupt:
                assert StudyFile.read(study.folder).name == "study"
    monkeypatch.undo()
    assert count > 1


def test_rm_deletes_the_ledger_in_a_database(
    tmp_path: Path,
    database: str,  # noqa: F811
) -> None:
    searched(tmp_path / "study", database)
    assert call("rm", tmp_path / "study", "--yes").exit_code == 0

    searched(tmp_path / "study", database)
    assert len(Ledger.open(tmp_path / "study").records()) == 12
    assert call("rm", tmp_path / "study", "--yes").exit_code == 0


def test_a_copy_does_not_touch_the_ledger_in_a_database(
    tmp_path: Path,
    database: str,  # noqa: F811
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    searched(original, database)
    shutil.copytree(original, copy)
    with (
        pytest.raises(StudyError, match="its ledger belongs to"),
        Study.begin(copy, StudyFile.read(copy)),
    ):
        pass
    assert call("rm", copy, "--yes").exit_code == 0

    assert not copy.exists()
    assert len(Ledger.open(original).records()) == 12


def test_default_names_on_one_database_are_two_ledgers(
    tmp_path: Path,
    database: str,  # noqa: F811
) -> None:
    for name in ("one", "two"):
        searched(tmp_path / name, database)
    ledgers = {StudyFile.read(tmp_path / name).ledger for name in ("one", "two")}

    assert len(ledgers) == 2
    assert all(ledger.startswith("study-") for ledger in ledgers)
    assert len(Ledger.open(tmp_path / "one").records()) == 12
    for name in ("one", "two"):
        assert call("rm", tmp_path / name, "--yes").exit_code == 0


def test_a_chosen_name_on_one_database_is_one_studys(
    tmp_path: Path,
    database: str,  # noqa: F811
) -> None:
    mine = StudyFile("mine", "", "", space_file(), {}, database, ledger="mine")
    open_study(tmp_path / "one", mine)
    other = replace(mine, space=space_file(recipe={"epochs": 5}))
    for asked, said in ((mine, ""), (other, "recipe.epochs: 9 in the study, 5 now")):
        with pytest.raises(StudyError) as error:
            open_study(tmp_path / "two", asked)
        assert f"belongs to the study mine in {tmp_path / 'one'}" in str(error.value)
        assert said in str(error.value)
        assert not (tmp_path / "two" / "study.yaml").exists()
    (tmp_path / "one" / "study.yaml").unlink()
    with pytest.raises(StudyError, match=r"recipe.epochs: 9 in the study, 5 now"):
        open_study(tmp_path / "one", other)
    open_study(tmp_path / "one", mine)
    assert call("rm", tmp_path / "one", "--yes").exit_code == 0


def test_a_ledger_that_is_gone_from_a_database_is_not_begun_again(
    tmp_path: Path,
    database: str,  # noqa: F811
) -> None:
    searched(tmp_path, database)
    file = StudyFile.read(tmp_path)
    optuna.delete_study(study_name=file.ledger, storage=open_storage(tmp_path, database))
    with pytest.raises(UserError, match="is gone, or has nothing in it"):
        open_study(tmp_path, file)
    assert kept(tmp_path) == set(range(12))
    assert call("rm", tmp_path, "--yes").exit_code == 0


def test_studies_are_listed_with_how_far_they_are(tmp_path: Path) -> None:
    searched(tmp_path / "done")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/study.yaml").write_text("name: 5")
    (tmp_path / "none").mkdir()
    listed = json.loads(call("list", "--studies", tmp_path, "--json").stdout)

    broken, done = listed
    assert broken["state"] == "cannot be read"
    said = call("status", tmp_path / "broken").output
    assert "study.yaml:1: name: 5 must be" in said and "study.yaml:1: facts: is missing" in said
    assert (done["study"], done["state"]) == (str(tmp_path / "done"), "complete")
    assert (done["trials ended"], done["trials wanted"]) == (12, 12)
    assert done["on the front"] == len(Study.open(done["study"]).front())
    with only_driver(tmp_path / "done"):
        assert "at work" in call("list", "--studies", tmp_path).output
        status = json.loads(call("status", tmp_path / "done", "--json").stdout)
    assert (status[0]["state"], status[0]["complete"], status[0]["running"]) == ("at work", 12, 0)
    assert re.search(r"trials ended +12 of 12\b", call("status", tmp_path / "done").output)


def test_confirmed_are_trainings_that_have_ended(tmp_path: Path) -> None:
    recorded = Path(__file__).parents[2] / "studies/reference/resnet20-16px-cifar100"
    folder = Path(shutil.copytree(recorded, tmp_path / "study"))
    confirmation = Study.open(folder).confirmation
    assert confirmation is not None
    attributes = confirmation.ledger.study.trials[0].user_attrs
    confirmation.ledger.study.enqueue_trial({}, user_attrs=attributes)
    (status,) = json.loads(call("status", folder, "--json").stdout)
    assert status["confirmed trainings"] == 12


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_ledger_is_exported_as_a_table(tmp_path: Path, kind: str) -> None:
    searched(tmp_path / "study")
    path = tmp_path / f"trials.{kind}"
    assert call("export", tmp_path / "study", path).exit_code == 0
    read = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    records = Study.open(tmp_path / "study").records()
    assert list(read["architecture"]) == list(records["architecture"])
    assert list(read["accuracy"]) == list(records["accuracy"])
    curves = map(json.loads, read["curve"]) if kind == "csv" else map(list, read["curve"])
    assert list(curves) == list(records["curve"])
    wrong = call("export", tmp_path / "study", tmp_path / "trials.xlsx")
    assert (wrong.exit_code, "must end in .csv or .parquet" in wrong.output) == (2, True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["ledger.log", "study.yaml", "costs.json"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    """A pipe in the place of a file would never end."""
    folder = tmp_path / "study"
    searched(folder, storage="journal")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    for command in (["study", "status"], ["explain"], ["study", "repair"]):
        number = ["1"] if command == ["explain"] else []
        result = CliRunner().invoke(program, [*command, str(folder), *number])
        is_well = name == "costs.json" or (name == "study.yaml" and "repair" in command)
        assert result.exit_code == (0 if is_well else 2), result.output
