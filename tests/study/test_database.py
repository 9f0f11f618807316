"""A driver of a study in PostgreSQL whose sessions end, or whose server goes away for a time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.storages._rdb import storage as rdb
from sqlalchemy import create_engine, text
from sqlalchemy.event import listen
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.pool import StaticPool

from afi_search.search.conductor import Conductor
from afi_search.search.proposer import Proposer
from afi_search.search.pruners import make_pruner
from afi_search.search.stopping import StopRequest
from afi_search.space import Space
from afi_search.study import Ledger, database
from afi_search.study.database import postgresql as url_of
from afi_search.study.folder import StudyError, StudyFile
from afi_search.study.journal import StorageError
from afi_search.study.storage import only_client
from afi_search.study.study import Study
from tests.search.studies import conductor_costs, conductor_for, play, space_file
from tests.study import postgresql

FACTS = ["number", "state", "architecture", "epochs", "accuracy"]


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    with postgresql.server() as running:
        yield running


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_HEARTBEAT", 0.2)


def end_all_sessions(url: str) -> None:
    engine = create_engine(url_of(url))
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )
    engine.dispose()


def set_up(server: postgresql.Server, setting: str, value: str) -> None:
    engine = create_engine(url_of(server.url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"ALTER SYSTEM SET {setting} = '{value}'"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


@pytest.mark.parametrize("loss", ["ended sessions", "restart", "crash"])
def test_a_driver_keeps_its_study_whatever_becomes_of_its_session(
    server: postgresql.Server, loss: str
) -> None:
    with only_client(server.url, "kept") as hold:
        assert hold is not None
        first = hold._session
        if loss == "ended sessions":
            end_all_sessions(server.url)
        else:
            server.restart(mode="immediate" if loss == "crash" else "fast")
        deadline = time.monotonic() + 20
        while hold._session == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(StorageError, match="another driver"), only_client(server.url, "kept"):
            pass
        hold.renew()
    with only_client(server.url, "kept"):
        pass


def test_sessions_that_end_while_the_ledger_is_opened_are_followed_by_others(
    server: postgresql.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_the_tables = rdb._VersionManager

    def ended(*arguments: Any) -> Any:
        end_all_sessions(server.url)
        return after_the_tables(*arguments)

    monkeypatch.setattr(rdb, "_VersionManager", ended)
    with only_client(server.url, "opened") as hold:
        assert database.open_database(server.url, hold).get_all_studies() == []


def test_sessions_that_end_as_fast_as_others_are_made_are_waited_for(
    server: postgresql.Server,
) -> None:
    left = [1, 2, 3]

    def ended(*_: Any) -> None:
        if left:
            left.pop()
            raise DisconnectionError

    with only_client(server.url, "ending") as hold:
        storage = database.open_database(server.url, hold)
        listen(storage._storage._backend.engine, "checkout", ended)  # type: ignore[attr-defined]
        assert storage.get_all_studies() == []
    assert not left


def test_no_timeout_of_idle_sessions_ends_the_hold(server: postgresql.Server) -> None:
    for setting in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
        set_up(server, setting, "1s")
    try:
        with only_client(server.url, "idle") as hold:
            assert hold is not None
            first = hold._session
            time.sleep(2.5)
            assert hold._session == first
            with (
                pytest.raises(StorageError, match="another driver"),
                only_client(server.url, "idle"),
            ):
                pass
    finally:
        for setting in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
            set_up(server, setting, "0")


def test_who_was_away_too_long_is_told_that_another_has_the_study(
    server: postgresql.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(database, "_HEARTBEAT", 3600.0)  # as if this process had been asleep
    asked = StudyFile("taken", "", "", space_file(search={"trials": 2}), {}, server.url)
    with pytest.raises(StudyError), Study.begin(tmp_path, asked) as study:
        hold = study.ledger._storage._hold  # type: ignore[attr-defined]
        hold._connection.close()
        with only_client(server.url, study.file.ledger):
            for _ in range(2):  # it looks before it writes, and remembers
                with pytest.raises(StorageError, match="another driver has taken the study taken-"):
                    study.ledger.study.set_user_attr("a", 1)
            assert study.ledger.trials() == []
        raise StudyError("the end")


def test_a_study_waits_for_its_database_and_ends_as_if_it_had_never_been_away(
    server: postgresql.Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = space_file(search={"trials": 6})
    expected, conductor = conductor_for(file, tmp_path / "calm")
    play(conductor)
    asked = StudyFile("study", "", "", file, {}, server.url)
    restarts: list[tuple[int, int]] = []

    def restart(number: int, epoch: int) -> None:
        if epoch == 1:
            restarts.append((number, epoch))
            if number % 2:
                end_all_sessions(server.url)
            else:
                server.stop()
                threading.Timer(1.5, server.start).start()

    with Study.begin(tmp_path / "study", asked) as study:
        proposer = Proposer(Space(file), conductor_costs(file))
        play(Conductor(study.ledger, file, proposer, make_pruner(file)), on_epoch=restart)

    assert len(restarts) == 6
    assert "The database is away" in caplog.text
    got = Ledger.open(tmp_path / "study").records()
    assert got[FACTS].equals(expected.records()[FACTS])


def test_a_database_that_stays_away_ends_the_wait_in_words(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 1.0)
    asked = StudyFile("away", "", "", space_file(), {}, server.url)
    with Study.begin(tmp_path, asked) as study:
        server.stop()
        try:
            with pytest.raises(StorageError, match="has been away for 0 minutes"):
                study.ledger.study.set_user_attr("a", 1)
            monkeypatch.setattr(database, "_PATIENCE", 3600.0)  # it is not waited for again
            with pytest.raises(StorageError, match="has been away"):
                study.records()
        finally:
            server.start()


def test_a_database_that_is_silent_is_waited_for_and_told(
    server: postgresql.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As one whose machine is suspended, or a disk of which does not answer."""
    monkeypatch.setattr(database, "_SILENCE", 0.2)
    asked = StudyFile("silent", "", "", space_file(), {}, server.url)
    engine = create_engine(url_of(server.url))
    with Study.begin(tmp_path, asked) as study, engine.connect() as connection:
        connection.execute(text("LOCK TABLE study_user_attributes IN ACCESS EXCLUSIVE MODE"))
        threading.Timer(1.0, connection.commit).start()
        study.ledger.study.set_user_attr("a", 1)
        assert "The database is silent; the study waits for it." in caplog.text
        assert study.ledger.study.user_attrs["a"] == 1
    engine.dispose()


def test_a_database_that_can_only_be_read_any_more_breaks_off_in_a_line(
    server: postgresql.Server, tmp_path: Path
) -> None:
    """As after a failover to a copy."""
    asked = StudyFile("read", "", "", space_file(), {}, server.url)
    with Study.begin(tmp_path, asked) as study:
        set_up(server, "default_transaction_read_only", "on")
        stop = StopRequest()
        try:
            end_all_sessions(server.url)
            with stop.if_the_ledger_fails():
                study.ledger.study.set_user_attr("a", 1)
        finally:
            set_up(server, "default_transaction_read_only", "off")
        told = r"the ledger cannot be written: cannot execute \w+ in a read-only transaction"
        assert re.fullmatch(told, stop.reason)


def test_a_pooler_that_shares_sessions_out_is_refused(
    server: postgresql.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PgBouncer gives two clients one session, whose lock both would have."""
    monkeypatch.setattr(database, "NullPool", StaticPool)
    with pytest.raises(StorageError, match="pool_mode = session"), only_client(server.url, "pool"):
        pass
    monkeypatch.undo()
    with only_client(server.url, "pool"):
        pass


@pytest.mark.parametrize("operation", ["create_new_trial", "set_trial_state_values"])
def test_what_was_entered_before_the_answer_was_lost_is_not_entered_again(
    server: postgresql.Server, tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = space_file(search={"trials": 1})
    asked = StudyFile(f"once-{operation}", "", "", file, {}, server.url)
    with Study.begin(tmp_path, asked) as study:
        storage = study.ledger._storage._storage  # type: ignore[attr-defined]
        method, calls = getattr(storage, operation), []

        def enter_and_lose(*args: object, **kwargs: object) -> object:
            answer = method(*args, **kwargs)
            calls.append(answer)
            if len(calls) == 1:
                end_all_sessions(server.url)
                storage.get_all_studies()
            return answer

        enter_and_lose.__name__ = operation
        monkeypatch.setattr(storage, operation, enter_and_lose)
        monkeypatch.setattr(storage, "get_all_studies", _lost)
        proposer = Proposer(Space(file), conductor_costs(file))
        play(Conductor(study.ledger, file, proposer, make_pruner(file)))
        assert list(study.records()["state"]) == ["complete"]


def _lost() -> None:
    raise OperationalError("COMMIT", {}, Exception("the connection was closed"))
