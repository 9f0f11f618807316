"""Where a ledger is kept: a file in the study's folder, or a PostgreSQL database."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from afi_search.study.journal import Journal, LedgerJournal, StorageError

JOURNAL, SQLITE = "journal", "sqlite"
FILES = {JOURNAL: "ledger.log", SQLITE: "ledger.db"}
_SECONDS_UNTIL_LOCKED = 60
_NO_DRIVER = "PostgreSQL needs an extra that is not installed: pip install -e '.[postgres]'"


def check_storage(name: str) -> str:
    """Return the name of a storage, or the URL of a database, as it may be written to study.yaml.

    Raises:
        StorageError: it is none, or holds a password.
    """
    if name in FILES:
        return name
    url = _postgresql(name)
    if url.password is not None or any("password" in key.lower() for key in url.query):
        raise StorageError(
            f"--storage {url.set(query={}).render_as_string(hide_password=True)}: leave the "
            f"password out, it would be written into study.yaml; PGPASSWORD or ~/.pgpass hold it"
        )
    return name


def open_storage(folder: Path, name: str = JOURNAL, *, must_exist: bool = False) -> BaseStorage:
    """Open the storage of that name; one in a file lies in `folder`.

    Args:
        folder: of the study.
        name: `journal`, `sqlite` or the URL of a PostgreSQL database.
        must_exist: whether it is there already, and is only to be read.

    Raises:
        StorageError: it cannot be opened.
    """
    path = folder / FILES[name] if name in FILES else None
    try:
        if path is None:
            url = _postgresql(name).render_as_string(hide_password=False)
            return get_storage(RDBStorage(url, engine_kwargs={"pool_pre_ping": True}))
        if name == JOURNAL:
            journal = Journal(path)
            if not must_exist:
                journal.drop_unfinished_line()
            return LedgerJournal(journal)
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
        hint = f"; afi-search study repair {folder} sets it aside" if name == SQLITE else ""
        cause = f"{_cause(error)}{hint}"
        raise StorageError(f"the ledger {path or name} cannot be opened: {cause}") from None


def has_file(folder: Path, name: str) -> bool:
    """Whether a folder holds the file of that storage, with anything in it."""
    path = folder / FILES.get(name, "")
    return not in_database(name) and path.is_file() and path.stat().st_size > 0


def in_database(name: str) -> bool:
    """Whether that storage is a database, and no file in the study's folder."""
    return name not in FILES


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
