from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from afi_search.errors import UserError
from afi_search.search import Ledger
from afi_search.search.storage import StorageError, check_storage, only_client, open_storage
from tests.search import postgresql
from tests.search.studies import Killed, conductor_for, play, space_file


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    programs = postgresql.find_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL's programs: apt-get install postgresql")
    with postgresql.server(programs, tmp_path_factory.mktemp("postgresql")) as url:
        yield url


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str:
    return "journal" if request.param == "journal" else request.getfixturevalue("database")


def test_other_storages_hold_the_same_study(tmp_path: Path, storage: str) -> None:
    file = space_file(search={"trials": 8})
    expected, conductor = conductor_for(file, tmp_path / "sqlite")
    play(conductor)

    deaths: list[tuple[int, int]] = []

    def die(number: int, epoch: int) -> None:
        if len(deaths) < 3 and (number, epoch) not in deaths and epoch == 1:
            deaths.append((number, epoch))
            raise Killed

    checkpoints: dict[int, int] = {}
    while True:
        conductor = conductor_for(file, tmp_path / "other", storage)[1]
        try:
            play(conductor, checkpoints=checkpoints, on_epoch=die)
            break
        except Killed:
            continue

    assert len(deaths) == 3
    times = ["started", "finished"]
    got = Ledger.open(tmp_path / "other").records()
    assert got.drop(columns=times).equals(expected.records().drop(columns=times))


def test_one_driver_a_study_in_a_database(database: str) -> None:
    with only_client(database, "one"):
        with pytest.raises(StorageError, match="another driver"), only_client(database, "one"):
            pass
        with only_client(database, "two"):
            pass
    with only_client(database, "one"):
        pass


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mysql://a@b/c", "must be sqlite, journal, or postgresql://"),
        ("sqllite", "must be sqlite, journal, or postgresql://"),
        ("postgresql://a:secret@b/c", "leave the password out"),
    ],
)
def test_storages_are_named_right_and_without_secrets(name: str, said: str) -> None:
    with pytest.raises(StorageError, match=said) as error:
        check_storage(name)
    assert "secret" not in str(error.value)


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    with pytest.raises(StorageError, match="cannot be opened"):
        open_storage(tmp_path, "postgresql://nobody@127.0.0.1:1/nothing")


@pytest.mark.parametrize("content", [b"", b"this is not a database, whatever its name says"])
def test_a_file_that_is_no_ledger_is_named(tmp_path: Path, content: bytes) -> None:
    _, conductor = conductor_for(space_file(search={"trials": 1}), tmp_path)
    play(conductor)
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    (tmp_path / "ledger.db").write_bytes(content)

    with pytest.raises(UserError, match=r"ledger|storage"):
        Ledger.open(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be opened"):
        open_storage(tmp_path)


def test_readers_do_not_disturb_the_driver(tmp_path: Path) -> None:
    """A dashboard that reads, and another program that writes for a moment."""
    ledger, conductor = conductor_for(space_file(search={"trials": 6}), tmp_path)
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute("BEGIN")
    other.execute("SELECT * FROM trials").fetchall()
    play(conductor)
    other.rollback()

    assert len(ledger.records()) == 6
