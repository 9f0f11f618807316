from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from afi_search.study import Ledger
from afi_search.study.facts import gather_facts
from afi_search.study.folder import StudyError, StudyFile, only_driver, study_name
from afi_search.study.ledger import LedgerError
from afi_search.study.study import Study
from tests.search.studies import conductor_for, open_study, play, space_file


def study(**changes: object) -> StudyFile:
    file = space_file(**changes)
    return StudyFile("one", "smoke", "a note", file, {"command": "run", "device": "a CPU"})


def test_study_yaml_reads_back(tmp_path: Path) -> None:
    asked = study(constraints={"macs": "80M"}, search={"first": ["resnet20(base-r4, off, off)"]})
    open_study(tmp_path, asked)

    assert StudyFile.read(tmp_path) == asked


@pytest.mark.parametrize("name", ["..", "/x", "exp::2", "a\n"])
def test_a_study_has_a_name_that_can_be_a_folders(name: str) -> None:
    with pytest.raises(StudyError, match=r"the study.s name: .* is no name; write up to 100"):
        replace(study(), name=name)


def test_a_study_of_0_1_0_opens_under_the_pruners_new_keys(tmp_path: Path) -> None:
    asked = study()
    open_study(tmp_path, asked)
    path = tmp_path / "study.yaml"
    old = path.read_text()
    for new, before in [("grace_period", "grace"), ("min_trials", "peers")]:
        assert f"{new}:" in old
        old = old.replace(new, before)
    path.write_text(old.replace("reduction_factor", "reduction"))

    assert open_study(tmp_path, asked) == asked
    assert "grace_period: 1" in path.read_text()


def test_the_facts_of_the_first_start_stay(tmp_path: Path) -> None:
    open_study(tmp_path, study())
    later = StudyFile("one", "smoke", "", study().space, {"command": "another"})

    assert open_study(tmp_path, later).facts["command"] == "run"
    assert StudyFile.read(tmp_path).facts["command"] == "run"


def test_what_later_runs_ran_with_is_kept_and_told(tmp_path: Path) -> None:
    def run(**facts: str) -> StudyFile:
        first = {"started": "monday", "command": "run", "torch": "2.13", "device": "a CPU"}
        return open_study(tmp_path, replace(study(), facts={**first, **facts}))

    run()
    run(started="tuesday", command="run again")
    assert run(started="wednesday").later == ()
    run(started="thursday", torch="2.14")
    run(started="friday", torch="2.14")
    last = run(started="saturday", torch="2.14", device="an H100", commit="abc")

    with Study.begin(tmp_path, replace(last, facts={"torch": "2.15"})) as told:
        assert told.news == {"torch": "2.15"}
    with Study.begin(tmp_path, replace(last, facts={"torch": "2.15"})) as told:
        assert told.news == {}
    assert last == StudyFile.read(tmp_path)
    assert last.later == (
        {"started": "thursday", "torch": "2.14"},
        {"started": "saturday", "commit": "abc", "device": "an H100"},
    )
    assert StudyFile.read(tmp_path).later[:2] == last.later
    info = Study.open(tmp_path).info
    assert info.device == "a CPU; an H100 since saturday"
    assert info.environment["torch"] == "2.13; 2.14 since thursday; 2.15 since now"
    assert info.environment["commit"] == "unknown; abc since saturday"


def test_a_study_may_grow_but_not_change(tmp_path: Path) -> None:
    open_study(tmp_path, study())
    open_study(tmp_path, study(search={"trials": 40, "concurrency": 3}))
    with pytest.raises(StudyError) as error:
        data = {"name": "digits", "image_size": 16}
        open_study(tmp_path, study(recipe={"epochs": 5}, search={"seed": 9}, data=data))

    assert "data.image_size: None in the study, 16 now" in str(error.value)
    assert "recipe.epochs: 9 in the study, 5 now" in str(error.value)
    assert "search.seed: 0 in the study, 9 now" in str(error.value)
    assert StudyFile.read(tmp_path).space.search.trials == 40


@pytest.mark.parametrize("name", ["report.html", "trials.csv", "confirm/notes", "promote/x/mine"])
def test_a_study_does_not_begin_over_what_is_of_something_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")

    words = f"is no study's folder, .* {name.partition('/')[0]}; move that away"
    with pytest.raises(StudyError, match=words), Study.begin(tmp_path, study()):
        pass
    assert {path for path in tmp_path.rglob("*") if path.is_file()} - {tmp_path / ".lock"} == {
        tmp_path / name
    }


def test_a_study_begins_beside_what_it_never_writes(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with Study.begin(tmp_path, study()):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_names_tell_what_data_and_preset() -> None:
    assert study_name(space_file(), "smoke") == "resnet20-digits-smoke"
    assert study_name(space_file(name="mine"), None) == "mine-digits"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", "3"), ("preset", "[]"), ("note", "{}"), ("space", "1"), ("facts", "x")),
        *(("storage", "[]"), ("checkpoints", "true"), ("id", "null"), ("later", "[1]")),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_with_its_line(
    tmp_path: Path, key: str, value: str
) -> None:
    conductor_for(space_file(), tmp_path)
    path = tmp_path / "study.yaml"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(" ")]
    texts = [f"{key}: {value}" if line.startswith(f"{key}:") else line for line in kept]
    path.write_text("\n".join(texts))
    line = texts.index(f"{key}: {value}") + 1
    with pytest.raises(StudyError, match=rf"study\.yaml:{line}: {key}"):
        StudyFile.read(tmp_path)


@pytest.mark.parametrize("content", ["", "name: x", "{", "- 1"])
def test_a_broken_study_yaml_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.yaml").write_text(content)

    with pytest.raises(StudyError, match=r"study\.yaml"):
        StudyFile.read(tmp_path)


def test_a_mistake_in_study_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    open_study(tmp_path, study())
    path = tmp_path / "study.yaml"
    path.write_text(path.read_text().replace("epochs: 9", "epochs: true"))
    line = path.read_text().splitlines().index("    epochs: true") + 1

    with pytest.raises(StudyError) as error:
        StudyFile.read(tmp_path)

    said = f"{path}:{line}: space.recipe.epochs: true must be a whole number"
    assert said in str(error.value)


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is not a study's folder"):
        StudyFile.read(tmp_path)
    with pytest.raises(StudyError, match="is not a study's folder"):
        Ledger.open(tmp_path)


def test_a_second_driver_is_refused_while_the_first_lives_though_it_be_suspended(
    tmp_path: Path,
) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from pathlib import Path\n"
            "from afi_search.study.folder import only_driver\n"
            "with only_driver(Path(sys.argv[1])):\n"
            "    print('held', flush=True)\n"
            "    time.sleep(600)\n",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.send_signal(signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(StudyError, match="another driver is at work"), only_driver(tmp_path):
            pass
        (tmp_path / ".lock").unlink()  # by somebody who takes it for a stale one

    holder.kill()
    holder.wait()
    with only_driver(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "study" / ".lock").mkdir(parents=True)
    for folder, named in (("file/study", "file/study"), ("study", r"study/\.lock")):
        with (
            pytest.raises(StudyError, match=rf"{folder}: cannot be written \(\S+{named}: .*; make"),
            only_driver(tmp_path / folder),
        ):
            pass


def test_a_moved_study_still_opens(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    ledger, conductor = conductor_for(space_file(search={"trials": 5}), folder)
    play(conductor)
    before = ledger.records()
    del ledger, conductor
    moved = folder.rename(tmp_path / "there")

    assert Ledger.open(moved).records().equals(before)


def test_a_copied_study_goes_on_by_itself(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    ledger, conductor = conductor_for(space_file(search={"trials": 4}), original)
    play(conductor)
    before = ledger.records()
    shutil.copytree(original, copy)
    assert Ledger.open(copy).records().equals(before)

    play(conductor_for(space_file(search={"trials": 7}), copy)[1])

    assert len(Ledger.open(copy).records()) == 7
    assert Ledger.open(original).records().equals(before)


def test_other_objectives_need_another_ledger(tmp_path: Path) -> None:
    conductor_for(space_file(), tmp_path)
    alone = space_file(objectives=["accuracy"], search={"pruner": "asha"})
    asked = StudyFile("study", "", "", alone, {})
    with pytest.raises(StudyError, match=r"objectives: \['accuracy', 'macs'\] in the study"):
        open_study(tmp_path, asked)
    path = tmp_path / "ledger.log"  # of before its settings stood in it
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"study.yaml"' not in line))
    (tmp_path / "study.yaml").write_text(replace(StudyFile.read(tmp_path), space=alone).dump())

    with pytest.raises(LedgerError, match="was made for the objectives accuracy, macs"):
        open_study(tmp_path, asked)


def test_settings_of_a_pruner_that_is_not_there_keep_no_study_from_going_on(tmp_path: Path) -> None:
    def settings(name: str, grace_period: int) -> StudyFile:
        pruner = {"name": name, "grace_period": grace_period}
        return StudyFile("study", "", "", space_file(search={"pruner": pruner}), {})

    open_study(tmp_path / "none", settings("none", 1))
    open_study(tmp_path / "none", settings("none", 2))

    open_study(tmp_path / "asha", settings("mo-asha", 1))
    with pytest.raises(StudyError, match="grace_period: 1 in the study, 2 now"):
        open_study(tmp_path / "asha", settings("mo-asha", 2))


def test_facts_name_versions_and_commit() -> None:
    facts = gather_facts("afi-search run x", "a CPU")

    assert {"command", "started", "commit", "device", "python", "torch", "ray"} <= set(facts)
    assert all(isinstance(value, str) and value for value in facts.values())


def test_a_package_in_somebodys_repository_is_not_of_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "theirs"]
    for command in (["git", "init", "-q"], [*commit, "--allow-empty"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.setattr("afi_search.study.facts._SOURCES", tmp_path / ".venv/lib/site-packages")

    assert gather_facts("", "")["commit"] == "unknown"
