"""Ledgers and study.yaml that are cut short, damaged, gone or another study's."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from afi_search.cli.study import app
from afi_search.data import ImageSet, load, split_of
from afi_search.engine.run_study import figures_of
from afi_search.errors import UserError
from afi_search.report.view import StudyView
from afi_search.space import SpaceFile
from afi_search.space.schema import Data
from afi_search.study import Ledger
from afi_search.study.folder import StudyError, StudyFile
from afi_search.study.journal import DamagedLedger, set_aside
from afi_search.study.ledger import LedgerError
from afi_search.study.operations import Facts
from afi_search.study.repair import repair
from afi_search.study.study import Study
from afi_search.train import save
from tests.search.studies import accuracy, conductor_for, open_study, play, space_file
from tests.study.test_storage import FILES

WHAT_COUNTS = ["number", "state", "architecture", "seed", "epochs", "full", "accuracy", "macs"]


def searched(folder: Path, trials: int = 6, storage: str = "journal") -> SpaceFile:
    """A finished study of which every trial has a checkpoint that says what it is."""
    file = space_file(search={"trials": trials})
    ledger, conductor = conductor_for(file, folder, storage)
    play(conductor)
    for trial in ledger.trials():
        epochs = range(1, len(trial.intermediate_values) + 1)
        history = [
            {"epoch": n, "accuracy": trial.intermediate_values[n], "seconds": 1.0} for n in epochs
        ]
        known = {name: trial.user_attrs[name] for name in ("architecture", "seed")}
        state = {"epoch": len(history), "history": history, "trial": known}
        save(state, Study.open(folder).trial_checkpoints(trial.number))
    return file


def trials(folder: Path) -> list[dict[str, Any]]:
    records: pd.DataFrame = Ledger.open(folder).records()
    return records[WHAT_COUNTS].to_dict("records")  # type: ignore[return-value]


def epochs_of(folder: Path) -> dict[int, int]:
    return {trial["number"]: trial["epochs"] for trial in trials(folder)}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def resume(folder: Path, file: SpaceFile, checkpoints: dict[int, int]) -> None:
    """Begin the study again as the command does, and train what is left."""
    open_study(folder, StudyFile("study", "", "", file, {}))
    play(conductor_for(file, folder)[1], checkpoints=dict(checkpoints))


@pytest.mark.parametrize(
    ("tail", "step"),
    [(b"", 7), (b"\0", 11), (b"\0" * 4096, 11), pytest.param(b"", 1, marks=pytest.mark.slow)],
)
def test_a_power_failure_costs_lines_and_not_the_study(
    tmp_path: Path, tail: bytes, step: int
) -> None:
    """The file ends at any byte of its last lines, or in a block of NULs from there on."""
    folder = tmp_path / "study"
    file = searched(folder, trials=4)
    expected, checkpoints = trials(folder), epochs_of(folder)
    whole = (folder / "ledger.log").read_bytes()
    lines = whole.splitlines(keepends=True)
    for size in range(len(whole) - sum(map(len, lines[-4:])), len(whole), step):
        (folder / "ledger.log").write_bytes(whole[:size] + tail)
        ledger, conductor = conductor_for(file, folder)
        assert len(ledger.trials()) >= 3
        play(conductor, checkpoints=dict(checkpoints))
        assert ledger.records()[WHAT_COUNTS].to_dict("records") == expected, size


def operation(**fields: Any) -> bytes:
    return json.dumps({"worker_id": "w", **fields}).encode()


DAMAGES = {
    "garbage": b"garbage",
    "nothing but a brace": b"{",
    "NUL bytes": b"\0" * 600,
    "not UTF-8": b"\xff\xfe\xfa",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "an empty mapping": b"{}",
    "nested deeply": b"[" * 100_000,
    "no such operation": operation(op_code=99),
    "an operation that is a list": operation(op_code=[7]),
    "an accuracy that is a text": operation(
        op_code=7, trial_id=0, step=1, intermediate_value="high"
    ),
    "an accuracy of no trial": operation(op_code=7, trial_id=10**9, step=1, intermediate_value=0.5),
    "a trial without an architecture": operation(
        op_code=4, study_id=0, datetime_start=None, user_attrs={}
    ),
    "a trial whose cost is none": operation(
        op_code=4, study_id=0, user_attrs=dict.fromkeys(Facts.__required_keys__, "x")
    ),
    "a time that is a text": operation(op_code=8, trial_id=0, user_attr={"seconds": "x"}),
    "an epoch beyond all bounds": operation(
        op_code=7, trial_id=0, step=10**400, intermediate_value=0.5
    ),
    "a trial that ends in a text": operation(op_code=6, trial_id=0, state="x", values=None),
    "an accuracy of no epoch": operation(op_code=7, trial_id=0, step=None, intermediate_value=0.5),
    "an attribute of no study": operation(op_code=2, study_id=3, user_attr={"a": 1}),
    "a line of an epoch cut short": b'{"op_code":7,"worker_id":"1","trial_id":2,"step":1,"inter',
}


@pytest.mark.parametrize("damage", ["garbage", "NUL bytes", "a list", "nested deeply"])
def test_one_trial_is_not_told_from_a_damaged_ledger(tmp_path: Path, damage: str) -> None:
    """It is read without the others; in place of what is damaged may have been an epoch of it."""
    searched(tmp_path)
    path = tmp_path / "ledger.log"
    lines = path.read_bytes().splitlines()
    at = next(i for i, line in enumerate(lines) if b'"trial_id":5,"step":1,' in line)
    path.write_bytes(b"\n".join([*lines[:at], DAMAGES[damage], *lines[at + 1 :]]) + b"\n")

    with pytest.raises(DamagedLedger, match=f"ledger.log:{at + 1}: "):
        Ledger.find_in(tmp_path, 5)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_with_its_line_and_repaired(tmp_path: Path, damage: str, place: str) -> None:
    file = searched(tmp_path)
    expected, path = trials(tmp_path), tmp_path / "ledger.log"
    lines = path.read_bytes().splitlines()
    at = {"first": 0, "middle": len(lines) // 2, "last": len(lines)}[place]
    path.write_bytes(b"\n".join([*lines[:at], DAMAGES[damage], *lines[at:]]) + b"\n")
    before = files(tmp_path)

    opened = [lambda: Ledger.open(tmp_path), lambda: resume(tmp_path, file, {})]
    for action in opened:
        with pytest.raises(DamagedLedger) as error:
            action()
        assert str(error.value).startswith(f"{path}:{at + 1}: ")
        assert f"afi-search study repair {tmp_path}" in str(error.value)
        assert files(tmp_path) == before

    result = CliRunner().invoke(app, ["repair", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "set aside beside it: 1" in result.output
    aside = tmp_path / "ledger.log.damaged-1"
    assert aside.read_bytes().strip(b"\0\n") == DAMAGES[damage].strip(b"\0")
    assert trials(tmp_path) == expected
    resume(tmp_path, file, epochs_of(tmp_path))
    assert trials(tmp_path) == expected
    assert "nothing to repair" in CliRunner().invoke(app, ["repair", str(tmp_path)]).output


@pytest.mark.parametrize("exchanged", [True, False])
@pytest.mark.parametrize("distance", [1, 3, 41])
def test_lines_that_stand_elsewhere_or_twice_are_told_and_put_in_order(
    tmp_path: Path, distance: int, exchanged: bool
) -> None:
    searched(tmp_path)
    expected, path = trials(tmp_path), tmp_path / "ledger.log"
    whole = path.read_bytes().splitlines(keepends=True)
    told = 0
    for at in range(0, len(whole) - distance, 2):
        lines, other = list(whole), at + distance
        if exchanged:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines.insert(other, lines[at])
        path.write_bytes(b"".join(lines))
        try:
            assert trials(tmp_path) == expected, whole[at]
        except DamagedLedger:
            told += 1
            list(repair(tmp_path))
            assert trials(tmp_path) == expected, whole[at]
    assert told


@pytest.mark.parametrize("ends", [b" ", b"\n\n"])
def test_lines_whose_ends_an_editor_has_changed_are_kept(tmp_path: Path, ends: bytes) -> None:
    """All in one line, which is no whole one, or with empty lines between them."""
    searched(tmp_path)
    expected, path = trials(tmp_path), tmp_path / "ledger.log"
    path.write_bytes(path.read_bytes().replace(b"\n", ends))
    with pytest.raises(UserError, match="study repair"):
        Ledger.open(tmp_path)

    assert "set aside beside it: 0" in "".join(repair(tmp_path))
    assert trials(tmp_path) == expected


def test_what_is_set_aside_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.log"
    names = [set_aside(path, content).name for content in (b"one", b"two")]
    (tmp_path / names[0]).unlink()

    assert [set_aside(path, content).name for content in (b"three", b"four")] == [
        "ledger.log.damaged-1",
        "ledger.log.damaged-3",
    ]
    assert (tmp_path / "ledger.log.damaged-2").read_bytes() == b"two"


@pytest.mark.parametrize(
    ("rest", "step"), [(b"?", 1), (b"\0" * 300, 3), (b'{"op_code":4,"worker', 3)]
)
@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_any_line_may_be_lost_and_no_trial_takes_anothers_place(
    tmp_path: Path, rest: bytes, step: int, has_checkpoints: bool
) -> None:
    """Those that begin trials among them: trials are counted, and later lines name the count."""
    folder = tmp_path / "study"
    file = searched(folder, trials=4)
    if not has_checkpoints:
        shutil.rmtree(folder / "checkpoints")
    expected, checkpoints = trials(folder), epochs_of(folder)
    whole = (folder / "ledger.log").read_bytes()
    lines = whole.splitlines()
    for lost in range(0, len(lines) - 1, step):
        damaged = [*lines[:lost], rest, *lines[lost + 1 :]]
        (folder / "ledger.log").write_bytes(b"\n".join(damaged) + b"\n")
        list(repair(folder))
        ledger, conductor = conductor_for(file, folder)
        play(conductor, checkpoints=dict(checkpoints))

        got = ledger.records()[WHAT_COUNTS].to_dict("records")
        if has_checkpoints:
            assert got == expected, lines[lost]
            continue
        begun = sum(b'"op_code":4,' in line for line in lines[: lost + 1])
        for was, now in zip(expected, got, strict=True):
            if b'"op_code":4,' in lines[lost] and now["number"] == begun - 1:
                assert now["state"] == "failed"
            else:
                same = ("number", "state", "architecture", "seed", "macs")
                assert [was[name] for name in same] == [now[name] for name in same], lines[lost]


@pytest.mark.parametrize("storage", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_ledger_that_is_no_file_is_told(tmp_path: Path, storage: str, make: Any) -> None:
    file = searched(tmp_path, storage=storage)
    for path in tmp_path.glob("ledger.*"):
        path.unlink()
    make(tmp_path / FILES[storage])

    asked = StudyFile("study", "", "", file, {}, storage)
    readers: list[Any] = [repair, Ledger.open, lambda path: open_study(path, asked)]
    for opened in readers:
        with pytest.raises(UserError, match=rf"{FILES[storage]} cannot be opened: it is no file"):
            list(opened(tmp_path))


@pytest.mark.parametrize("storage", FILES)
@pytest.mark.parametrize("content", [None, b""])
def test_nothing_begins_again_where_the_ledger_is_gone(
    tmp_path: Path, storage: str, content: bytes | None
) -> None:
    file = searched(tmp_path, storage=storage)
    expected = trials(tmp_path)
    for path in tmp_path.glob("ledger.*"):
        path.unlink()
    if content is not None:
        (tmp_path / FILES[storage]).write_bytes(content)
    before = files(tmp_path)

    asked = StudyFile("study", "", "", file, {}, storage)
    with pytest.raises(UserError, match=r"is gone, or has nothing in it.*study repair"):
        open_study(tmp_path, asked)
    assert {**files(tmp_path), FILES[storage]: b""} == {**before, FILES[storage]: b""}

    list(repair(tmp_path))
    got = trials(tmp_path)
    assert [t["architecture"] for t in got] == [t["architecture"] for t in expected]
    assert [t["epochs"] for t in got] == [t["epochs"] for t in expected]
    assert [t for t in got if t["full"]] == [t for t in expected if t["full"]]
    open_study(tmp_path, asked)
    play(conductor_for(file, tmp_path, storage)[1], checkpoints=epochs_of(tmp_path))
    assert [t["architecture"] for t in trials(tmp_path)] == [t["architecture"] for t in expected]


@pytest.mark.parametrize("storage", FILES)
def test_a_ledger_from_a_backup_does_not_cost_the_trials_after_it(
    tmp_path: Path, storage: str
) -> None:
    """Their checkpoints are those of trials that it does not know, and nothing deletes them."""
    older, study = tmp_path / "older", tmp_path / "study"
    file = searched(study, 3, storage)
    shutil.copytree(study, older)
    searched(study, 6, storage)
    expected = trials(study)
    for path in study.glob("ledger.*"):
        path.unlink()
    for path in older.glob("ledger.*"):
        shutil.copy(path, study)
    before = files(study)

    asked = StudyFile("study", "", "", file, {}, storage)
    with pytest.raises(StudyError, match=r"has 3 trials, and .* checkpoint of trial 5:.*repair"):
        open_study(study, asked)
    assert set(files(study)) == set(before)

    list(repair(study))
    assert [t["architecture"] for t in trials(study)] == [t["architecture"] for t in expected]
    open_study(study, asked)


@pytest.mark.parametrize("storage", FILES)
@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_two_folders_do_not_share_a_ledger(tmp_path: Path, storage: str, link: Any) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    file = searched(one, storage=storage)
    shutil.copytree(one, other)
    path = other / FILES[storage]
    path.unlink()
    link(path, one / FILES[storage])

    with pytest.raises(StudyError, match="is a link, and whoever writes to it changes another"):
        open_study(other, StudyFile("study", "", "", file, {}, storage))
    assert trials(other) == trials(one)  # reading changes nothing


def test_other_images_are_not_trained_on_in_one_study(tmp_path: Path) -> None:
    """As of a user's data set that was made anew: what differs is named."""
    searched(tmp_path)
    ledger = Ledger.open(tmp_path)
    split = split_of(Data(name="digits"), load("digits"))
    figures = figures_of(split)
    ledger.compare_images(figures)
    slightly = figures["mean pixel of training images"] + 0.005  # of images drawn to size elsewhere
    ledger.compare_images({**figures, "mean pixel of training images": slightly})
    Ledger.open(tmp_path).compare_images(figures)

    fewer = replace(split, train=split.train.select(torch.arange(1000)))
    brighter = ImageSet(split.validation.images // 2, split.validation.labels)
    labelled = ImageSet(split.train.images, split.train.labels.flip(0))
    for others, told in (
        (fewer, "training images: 1150 in the study, 1000 now"),
        (replace(split, validation=brighter), "mean pixel of validation images: "),
        (replace(split, train=labelled), "checksum of their training labels: "),
    ):
        with pytest.raises(LedgerError, match=f"data: has other images(.|\n)*  {told}"):
            ledger.compare_images(figures_of(others))


def test_a_trial_without_a_checkpoint_is_lost_with_its_ledger_and_the_others_keep_their_numbers(
    tmp_path: Path,
) -> None:
    searched(tmp_path)
    expected = trials(tmp_path)
    (tmp_path / "ledger.log").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "00002")
    list(repair(tmp_path))

    for was, now in zip(expected, trials(tmp_path), strict=True):
        if was["number"] == 2:
            assert now["state"] == "failed"
        else:
            assert was["architecture"] == now["architecture"]


@pytest.mark.parametrize("content", [b"this is no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_database_file_that_is_none_is_set_aside(tmp_path: Path, content: bytes) -> None:
    searched(tmp_path, storage="sqlite")
    expected = trials(tmp_path)
    for path in tmp_path.glob("ledger.*"):
        path.unlink()
    (tmp_path / "ledger.db").write_bytes(content)
    with pytest.raises(UserError, match=r"ledger.db cannot be opened.*study repair"):
        Ledger.open(tmp_path)
    list(repair(tmp_path))

    assert (tmp_path / "ledger.db.damaged-1").read_bytes() == content
    assert [t["architecture"] for t in trials(tmp_path)] == [t["architecture"] for t in expected]


def test_a_database_file_that_was_deleted_under_its_driver_is_made_anew(tmp_path: Path) -> None:
    searched(tmp_path, storage="sqlite")
    expected = trials(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        database.execute("create table mine (a)")
        (tmp_path / "ledger.db").unlink()
        list(repair(tmp_path))

    assert [t["architecture"] for t in trials(tmp_path)] == [t["architecture"] for t in expected]


@pytest.mark.parametrize(
    "statement",
    [
        "update trial_user_attributes set value_json = 'null'",
        "update trial_intermediate_values set intermediate_value = null",
        "update trials set state = 'ASLEEP'",
        "drop table trial_user_attributes",
        "delete from trials where number in (1, 5)",
        "delete from trials where number = 2",
        "delete from trials",
        "update trials set number = 9 where number = 1",
        "delete from trial_intermediate_values where trial_id = 2",
        "delete from trial_values",
        "delete from studies",
        None,
    ],
)
def test_a_database_file_that_is_damaged_inside_is_set_aside(
    tmp_path: Path, statement: str | None
) -> None:
    """Or in a page of it, which is None here."""
    searched(tmp_path, storage="sqlite")
    expected = trials(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        database.execute(statement or "select 1")
        database.commit()
        database.execute("pragma wal_checkpoint(truncate)")
    if statement is None:
        with (tmp_path / "ledger.db").open("r+b") as file:
            file.seek(16 * 4096)
            file.write(b"\0" * 4096)
    with pytest.raises(UserError, match=r"ledger.db cannot be opened.*study repair"):
        Ledger.open(tmp_path)
    list(repair(tmp_path))
    got = trials(tmp_path)
    assert [t["architecture"] for t in got] == [t["architecture"] for t in expected]
    if statement and not statement.startswith(("delete from trials", "update trials")):
        assert [t["state"] for t in got] == [t["state"] for t in expected]


@pytest.mark.parametrize("storage", FILES)
def test_another_recipe_is_not_mixed_in_where_study_yaml_is_gone(
    tmp_path: Path, storage: str
) -> None:
    file = searched(tmp_path, storage=storage)
    text = (tmp_path / "study.yaml").read_text()
    (tmp_path / "study.yaml").unlink()
    other = space_file(search={"trials": 6}, recipe={"epochs": 5})
    with pytest.raises(StudyError, match=r"recipe.epochs: 9 in the study, 5 now"):
        open_study(tmp_path, StudyFile("study", "", "", other, {}, storage))
    assert not (tmp_path / "study.yaml").exists()

    open_study(tmp_path, StudyFile("study", "", "", file, {}, storage))
    assert (tmp_path / "study.yaml").read_text() == text
    (tmp_path / "study.yaml").unlink()
    list(repair(tmp_path))
    assert (tmp_path / "study.yaml").read_text() == text


def test_a_ledger_of_before_or_checkpoints_alone_do_not_say_the_settings(tmp_path: Path) -> None:
    file = searched(tmp_path)
    (tmp_path / "study.yaml").unlink()
    path = tmp_path / "ledger.log"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"study.yaml"' not in line))
    for what in ("ledger.log", "checkpoints"):
        with pytest.raises(StudyError, match=f"holds the {what} of a study whose study.yaml is"):
            resume(tmp_path, file, {})
        with pytest.raises(StudyError, match="cannot be repaired"):
            list(repair(tmp_path))
        path.write_text("")


@pytest.mark.parametrize("content", ["", "{", "name: x", "space: 1"])
def test_a_damaged_study_yaml_is_the_ledgers_again(tmp_path: Path, content: str) -> None:
    searched(tmp_path)
    text = (tmp_path / "study.yaml").read_text()
    (tmp_path / "study.yaml").write_text(content)
    list(repair(tmp_path))

    assert (tmp_path / "study.yaml").read_text() == text
    assert (tmp_path / "study.yaml.damaged-1").read_text() == content


@pytest.mark.parametrize("damaged", ["ledger.log", "study.yaml"])
def test_a_copy_is_refused_before_anything_is_written(tmp_path: Path, damaged: str) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    searched(original)
    shutil.copytree(original, copy)
    (copy / damaged).write_text("garbage\n" + (copy / damaged).read_text())
    before = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    with pytest.raises(StudyError, match=f"belongs to {original}, of which this study is a copy"):
        list(repair(copy))
    after = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    assert after == before


def test_a_folder_that_is_no_studys_is_not_repaired_and_not_made_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "typo"):
        result = CliRunner().invoke(app, ["repair", str(folder)])
        assert result.exit_code == 2
        assert "is not a study's folder" in result.output
    assert not list(tmp_path.iterdir())


def test_another_studys_settings_are_told_from_its_own_and_given_back(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    file = searched(one)
    searched(other)
    own = (one / "study.yaml").read_text()
    shutil.copy(other / "study.yaml", one)
    with pytest.raises(StudyError, match=r"belongs to the study that was here.* repair .*/one "):
        open_study(one, StudyFile("study", "", "", file, {}))
    (one / "study.yaml").unlink()
    list(repair(one))
    assert (one / "study.yaml").read_text() == own


@pytest.mark.parametrize("part", ["confirm", "supernet"])
def test_the_studies_in_a_study_are_repaired_with_it(tmp_path: Path, part: str) -> None:
    searched(tmp_path, trials=2)
    searched(tmp_path / part, trials=2)
    expected, path = trials(tmp_path / part), tmp_path / part / "ledger.log"
    path.write_bytes(b"garbage\n" + path.read_bytes())
    assert "set aside beside it: 1" in "".join(repair(tmp_path))
    assert trials(tmp_path / part) == expected
    assert not list(repair(tmp_path))


@pytest.mark.parametrize("content", ["", "garbage: [", "name: x"])
@pytest.mark.parametrize("part", ["confirm", "supernet"])
def test_a_damaged_study_in_a_study_is_told_with_the_way_out_and_deleted_with_it(
    tmp_path: Path, part: str, content: str
) -> None:
    study, inner = tmp_path / "study", tmp_path / "study" / part
    searched(study, trials=2)
    searched(inner, trials=2)
    (inner / "study.yaml").write_text(content)
    (inner / "mine").write_text("mine")
    view = StudyView.of(Study.open(study))
    assert len(view.records) == 2
    assert "is left out" in view.facts[-1]
    assert re.match(
        rf"{inner}/study.yaml(?s:.*)\n.*study repair {inner} brings", "".join(view.left_out)
    )

    done = CliRunner().invoke(app, ["rm", str(study), "--yes"])
    assert done.exit_code == 0
    assert f"{inner} may keep elsewhere" in " ".join(done.output.split())
    assert [path for path in study.rglob("*") if path.is_file()] == [inner / "mine"]


def test_settings_that_were_edited_are_not_the_ledgers(tmp_path: Path) -> None:
    file = searched(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(path.read_text().replace("epochs: 9", "epochs: 7"))
    edited = StudyFile.read(tmp_path)
    with pytest.raises(StudyError, match=r"its ledger was made with other[^$]*epochs: 9 .* 7 now"):
        open_study(tmp_path, edited)
    path.write_text(replace(edited, space=file).dump())
    open_study(tmp_path, replace(edited, space=file))


def test_accuracies_are_those_of_the_curve(tmp_path: Path) -> None:
    """What the tests above compare is not empty."""
    searched(tmp_path)
    for trial in Ledger.open(tmp_path).trials():
        from afi_search.space import Architecture

        architecture = Architecture.parse(trial.user_attrs["architecture"])
        assert trial.intermediate_values[1] == accuracy(architecture, 1)
