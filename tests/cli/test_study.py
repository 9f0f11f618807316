from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import afi_search
from afi_search.api import Study
from afi_search.cli.study import app
from afi_search.study import Ledger
from afi_search.study.folder import StudyFile, only_driver, open_study
from afi_search.train import save
from tests.search.studies import conductor_for, play, space_file
from tests.study.test_storage import database  # noqa: F401

CLI = "from afi_search.cli.main import main; main()"


def searched(folder: Path, storage: str = "sqlite", checkpoints: str = "checkpoints") -> set[int]:
    """A finished study with a checkpoint of every trial; the numbers of its front."""
    file = space_file(search={"trials": 12, "pruner": {"name": "none"}})
    folder.mkdir(parents=True, exist_ok=True)
    open_study(folder, StudyFile("study", "", "", file, {}, storage, checkpoints))
    ledger, conductor = conductor_for(file, folder, storage)
    play(conductor)
    for number in range(12):
        save({"epoch": 1}, Study.open(folder).trial_checkpoints(number))
    return set(afi_search.front(ledger.records())["number"])


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def kept(folder: Path) -> set[int]:
    return {int(path.name) for path in Path(Study.open(folder).checkpoints).iterdir()}


def test_prune_keeps_the_front_and_says_what_is_free(tmp_path: Path) -> None:
    front = searched(tmp_path)
    result = call("prune", tmp_path)

    assert result.exit_code == 0, result.output
    assert "of checkpoints deleted" in result.output
    assert front <= kept(tmp_path) < set(range(12))
    assert len(Ledger.open(tmp_path).records()) == 12
    assert Study.open(tmp_path).prune() == 0


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
