from __future__ import annotations

import os
import resource
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from afi_search.errors import UserError
from afi_search.study import Ledger, journal
from afi_search.study.journal import Journal, StorageError
from afi_search.study.operations import Log, read_operation
from afi_search.study.storage import check_storage, only_client, open_storage
from tests.search.studies import Killed, conductor_for, play, space_file
from tests.study import postgresql

FILES = {"journal": "ledger.log", "sqlite": "ledger.db"}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql.server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str:
    return "sqlite" if request.param == "sqlite" else request.getfixturevalue("database")


def test_other_storages_hold_the_same_study(tmp_path: Path, storage: str) -> None:
    file = space_file(search={"trials": 8})
    expected, conductor = conductor_for(file, tmp_path / "journal")
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
        ("mysql://a@b/c", "must be journal, sqlite, or postgresql://"),
        ("sqllite", "must be journal, sqlite, or postgresql://"),
        ("postgresql://a:secret@b/c", "leave the password out"),
        ("postgresql://a@b/c?password=secret", "leave the password out"),
        ("postgresql://a@b/c?options=-c%20password%3Dsecret", "leave the password out"),
        ("postgresql://a%3Asecret@b/c", "leave the password out"),
        ("postgresql://a%253Asecret@b/c", "leave the password out"),
        ("postgresql://a:secret", "leave the password out"),
        ("postgresql://b/dbname%3Dc%20passwd%3Dsecret", "leave the password out"),
        ("postgresql://a@b/c?sslpassword=secret", "leave the password out"),
        ("postgresql://a@b/c#pwd=secret", "leave the password out"),
        ("postgresql:a:secret@b/c", "leave the password out"),
        ("mysql://a:secret@b/c", "leave the password out"),
        ("host=b password=secret", "leave the password out"),
    ],
)
def test_storages_are_named_right_and_without_secrets(name: str, said: str) -> None:
    with pytest.raises(StorageError, match=said) as error:
        check_storage(name)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "postgresql://a@b:5432/c",
        "postgresql://a@[::1]:5432/c?sslkey=/a/b.key&passfile=/a/b",
        "postgresql:///c?host=/run/postgresql",
    ],
)
def test_what_holds_no_secret_is_taken(name: str) -> None:
    assert check_storage(name) == name


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    with pytest.raises(StorageError, match="cannot be opened"):
        open_storage(tmp_path, "postgresql://nobody@127.0.0.1:1/nothing")


@pytest.mark.parametrize("storage", FILES)
@pytest.mark.parametrize("content", [b"", b"this is no ledger,\nwhatever its\nname says\n"])
def test_a_file_that_is_no_ledger_is_named(tmp_path: Path, content: bytes, storage: str) -> None:
    _, conductor = conductor_for(space_file(search={"trials": 1}), tmp_path, storage)
    play(conductor)
    for file in tmp_path.glob("ledger.*"):
        file.unlink()
    (tmp_path / FILES[storage]).write_bytes(content)

    with pytest.raises(UserError, match=r"ledger|storage"):
        Ledger.open(tmp_path)


def test_a_line_cut_short_is_dropped_and_the_study_goes_on(tmp_path: Path) -> None:
    file = space_file(search={"trials": 3})
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor)
    before = ledger.records()
    path = tmp_path / "ledger.log"
    path.write_bytes(path.read_bytes() + b'{"op_code":4,"worker_id":"')

    assert Ledger.open(tmp_path).records().equals(before)
    more = space_file(search={"trials": 5})
    ledger, conductor = conductor_for(more, tmp_path)
    play(conductor)
    assert len(ledger.records()) == len(Ledger.open(tmp_path).records()) == 5


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger.log")
    some, more = ({"op_code": 10, "worker_id": worker} for worker in ("some", "more than fits"))
    journal.append_logs([some])
    whole = (tmp_path / "ledger.log").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.append_logs([more])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)

    assert (tmp_path / "ledger.log").read_bytes() == whole
    journal.append_logs([more])
    assert list(journal.read_logs(0)) == [some, more]


def test_what_another_program_has_cut_is_not_written_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger.log")
    line = {"op_code": 10, "worker_id": "some"}
    journal.append_logs([line, line])
    assert list(journal.read_logs(0)) == [line, line]
    (tmp_path / "ledger.log").write_bytes(b"")

    with pytest.raises(StorageError, match="shorter than it was"):
        journal.append_logs([line])
    assert (tmp_path / "ledger.log").read_bytes() == b""


@pytest.mark.parametrize("what", ["deleted", "replaced", "emptied"])
def test_a_database_file_that_is_another_one_now_is_not_written_on(
    tmp_path: Path, what: str
) -> None:
    _, conductor = conductor_for(space_file(search={"trials": 6}), tmp_path, "sqlite")
    path = tmp_path / "ledger.db"
    conductor.next()
    content = path.read_bytes()
    if what == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
    if what == "replaced":
        path.write_bytes(content)

    with pytest.raises(StorageError, match="was deleted, replaced or cut"):
        conductor.next()
    assert path.exists() == (what != "deleted")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be opened"):
        open_storage(tmp_path)


def test_readers_do_not_disturb_the_driver(tmp_path: Path) -> None:
    """A dashboard that reads, and another program that writes for a moment."""
    ledger, conductor = conductor_for(space_file(search={"trials": 6}), tmp_path, "sqlite")
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute("BEGIN")
    other.execute("SELECT * FROM trials").fetchall()
    play(conductor)
    other.rollback()

    assert len(ledger.records()) == 6


def test_each_line_of_a_ledger_is_read_and_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, conductor = conductor_for(space_file(), tmp_path)
    play(conductor)
    read = []

    def counted(line: bytes) -> Log:
        read.append(line)
        return read_operation(line)

    monkeypatch.setattr(journal, "read_operation", counted)
    ledger = Ledger.open(tmp_path)
    ledger.records()
    ledger.trials()
    lines = (tmp_path / "ledger.log").read_bytes().splitlines()
    assert len(read) == len(lines) > 100
