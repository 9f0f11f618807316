"""Where a ledger is kept: a file in the study's folder, or a PostgreSQL database."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from afi_search.errors import UserError

JOURNAL, SQLITE = "journal", "sqlite"
_FILES = {JOURNAL: "ledger.log", SQLITE: "ledger.db"}
_SECONDS_UNTIL_LOCKED = 60
_NO_DRIVER = "PostgreSQL needs an extra that is not installed: pip install -e '.[postgres]'"


class StorageError(UserError):
    """The ledger's storage cannot be used."""


def check_storage(name: str) -> str:
    """Return the name of a storage, or the URL of a database, as it may be written to study.yaml.

    Raises:
        StorageError: it is none, or holds a password.
    """
    if name in _FILES:
        return name
    url = _postgresql(name)
    if url.password is not None:
        raise StorageError(
            f"--storage {url.render_as_string(hide_password=True)}: leave the password out, it "
            f"would be written into study.yaml; put it into PGPASSWORD or ~/.pgpass"
        )
    return name


def open_storage(folder: Path, name: str = JOURNAL, *, must_exist: bool = False) -> BaseStorage:
    """Open the storage of that name; one in a file lies in `folder`.

    Args:
        folder: of the study.
        name: `journal`, `sqlite` or the URL of a PostgreSQL database.
        must_exist: whether it has to be there already, and is only to be read.

    Raises:
        StorageError: it cannot be opened, or has to be there already and is not.
    """
    path = folder / _FILES[name] if name in _FILES else None
    if path is not None and must_exist and not path.is_file():
        raise StorageError(f"{folder}: is not a study's folder; there is no {path.name} in it")
    try:
        if path is None:
            url = _postgresql(name).render_as_string(hide_password=False)
            return get_storage(RDBStorage(url, engine_kwargs={"pool_pre_ping": True}))
        if name == JOURNAL:
            journal = Journal(path)
            if not must_exist:
                journal.drop_unfinished_line()
            return JournalStorage(journal)
        connect = partial(
            sqlite3.connect,
            path,
            timeout=_SECONDS_UNTIL_LOCKED,
            check_same_thread=False,
            factory=_Connection,
        )
        # A path in a URL would be read for what it has in it: ?, %, {SCHEMA_VERSION}.
        return get_storage(
            RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": QueuePool})
        )
    except ImportError:
        raise StorageError(_NO_DRIVER) from None
    except (
        StorageInternalError,
        SQLAlchemyError,
        sqlite3.Error,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        raise StorageError(f"the ledger {path or name} cannot be opened: {_cause(error)}") from None


def in_database(name: str) -> bool:
    """Whether that storage is a database, and no file in the study's folder."""
    return name not in _FILES


@contextmanager
def only_client(name: str, study: str) -> Iterator[None]:
    """Hold a study in a database for this process alone; files need no more than their folder.

    Raises:
        StorageError: another process holds it, or the database cannot be reached.
    """
    if not in_database(name):
        yield
        return
    try:
        engine = create_engine(_postgresql(name))
    except ImportError:
        raise StorageError(_NO_DRIVER) from None
    try:
        with engine.connect() as connection:
            key = {"key": zlib.crc32(study.encode())}
            if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar():
                raise StorageError(
                    f"another driver is at work on the study {study} in that database; wait for "
                    f"it, or stop it first"
                )
            yield
    except SQLAlchemyError as error:
        raise StorageError(f"--storage {name}: {_cause(error)}") from None
    finally:
        engine.dispose()


class Journal(JournalFileBackend):
    """Optuna's journal in a file: one line of JSON an operation, appended and never changed.

    A line costs a tenth of what SQLite takes for the same, and the file works on shared folders
    (NFS), where SQLite's write-ahead log does not. Optuna's own backend waits for the disk at every
    line, and trusts that a line which is there is whole. Ours does not wait: a killed process loses
    nothing, and a power failure may cost the last lines, which the workers' checkpoints bring back.
    A line that a full disk lets through only in part is taken back.

    Args:
        path: of the file; it is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._alone = JournalFileSymlinkLock(str(path))
        super().__init__(str(path), self._alone)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations.

        Raises:
            OSError: they cannot be written; the file is then as it was.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._alone.acquire()
        try:
            _append_whole(self._path, lines)
        finally:
            self._alone.release()

    def drop_unfinished_line(self) -> None:
        """Cut off a last line that a power failure left unfinished; for its one writer."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            os.truncate(self._path, whole)


class _Connection(sqlite3.Connection):
    """A connection that does not wait for the disk at every transaction.

    A killed process loses nothing; a power failure may cost the last transactions, which the
    workers' checkpoints bring back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


def _postgresql(name: str) -> URL:
    """Read a database's URL, with the driver that the extra `postgres` installs."""
    try:
        url = make_url(name)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql":
        raise StorageError(
            f"--storage {name!r} must be {JOURNAL}, {SQLITE}, or postgresql://USER@HOST/DATABASE"
        )
    return url.set(drivername="postgresql+psycopg")


def _cause(error: BaseException) -> str:
    """Return the first line of what the database itself said."""
    while error.__cause__ is not None:
        error = error.__cause__
    original = getattr(error, "orig", None) or error
    return (str(original).splitlines() or [type(original).__name__])[0]


def _append_whole(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        before = os.fstat(file).st_size
        try:
            while content:
                content = content[os.write(file, content) :]
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)
