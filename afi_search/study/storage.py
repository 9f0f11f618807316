"""Where a ledger is kept: a file in the study's folder, or a PostgreSQL database."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import TrialState

from afi_search.files import has_secret, without_secret
from afi_search.study.journal import Journal, LedgerJournal, StorageError
from afi_search.study.operations import FACTS

if TYPE_CHECKING:
    from afi_search.study.database import Hold

JOURNAL, SQLITE = "journal", "sqlite"
FILES = {JOURNAL: "ledger.log", SQLITE: "ledger.db"}


def check_storage(name: str) -> str:
    """Return the name of a storage, or the URL of a database, as it may be written to study.yaml.

    Raises:
        StorageError: it is no address of a storage, or holds a password.
    """
    if name in FILES:
        return name
    from afi_search.study.database import postgresql

    if has_secret(name) or postgresql(name).password is not None:
        raise StorageError(
            f"--storage {without_secret(name)}: leave the password out, it would be written into "
            f"study.yaml; PGPASSWORD or ~/.pgpass hold it"
        )
    return name


def open_storage(folder: Path, name: str = JOURNAL, hold: Hold | None = None) -> BaseStorage:
    """Open a storage, or raise a StorageError; one in a file lies in the study's `folder`.

    With a `hold`, one in a database waits where that goes away.
    """
    path = folder / FILES[name] if name in FILES else None
    if path is not None and path.exists() and not path.is_file():
        raise StorageError(f"the ledger {path} cannot be opened: it is no file")
    try:
        if path is None:
            from afi_search.study.database import open_database

            return open_database(name, hold)
        if name == JOURNAL:
            return LedgerJournal(Journal(path))
        from sqlalchemy.event import listen
        from sqlalchemy.pool import QueuePool

        settings = {"timeout": 60, "check_same_thread": False, "factory": _Connection}
        connect = partial(sqlite3.connect, path, **settings)
        # A path in a URL would be read for what it has in it: ?, %, {SCHEMA_VERSION}.
        database = RDBStorage(
            "sqlite://", engine_kwargs={"creator": connect, "poolclass": QueuePool}
        )
        listen(database.engine, "checkout", partial(_require_same, path, path.stat()))
        storage = get_storage(database)
        _require_whole(connect(), storage)
        return storage
    except _errors_of_storages() as error:
        from afi_search.study.database import cause

        hint = f"; afi-search study repair {folder} sets it aside" if name == SQLITE else ""
        raise StorageError(
            f"the ledger {path or name} cannot be opened: {cause(error)}{hint}"
        ) from None


def _require_same(path: Path, opened: os.stat_result, *_: Any) -> None:
    """Raise a StorageError where a file is not the one that was opened: SQLite itself goes on."""
    now = path.stat() if path.is_file() else None
    if now is None or now.st_ino != opened.st_ino or now.st_size < opened.st_size:
        raise StorageError(
            f"{path} was deleted, replaced or cut while a driver was at work on it. Put the whole "
            f"one back, or let afi-search study repair {path.parent} bring back what the "
            f"checkpoints know"
        )


def _require_whole(connection: sqlite3.Connection, storage: BaseStorage) -> None:
    """Raise an error of storages where a page or a trial of a file is damaged or gone."""
    with closing(connection):
        (found,) = connection.execute("PRAGMA quick_check").fetchone()
        orphan = connection.execute("PRAGMA foreign_key_check").fetchone()
    if orphan is not None:
        raise ValueError(f"rows of its table {orphan[0]} are of {orphan[2]} that are gone")
    if found != "ok":
        raise ValueError(found.splitlines()[-1])
    try:
        for study in storage.get_all_studies():
            trials = storage.get_all_trials(study._study_id, deepcopy=False)
            for number, trial in enumerate(trials):
                if trial.number != number:
                    raise ValueError(f"trial {number} is gone")
                complete = trial.state == TrialState.COMPLETE
                if complete and not (trial.values and trial.intermediate_values):
                    raise ValueError(f"trial {number} is complete without values or epochs")
                FACTS.validate_json(json.dumps(trial.user_attrs), strict=True)
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"it holds what is no trial ({error!r})") from None


def _errors_of_storages() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError  # a ledger in a journal is read without it

    return StorageInternalError, SQLAlchemyError, sqlite3.Error, OSError, RuntimeError, ValueError


def has_file(folder: Path, name: str) -> bool:
    """Whether a folder holds the file of that storage, with anything in it."""
    path = folder / FILES.get(name, "")
    is_empty = path.is_file() and path.stat().st_size == 0
    return not in_database(name) and path.exists() and not is_empty


def in_database(name: str) -> bool:
    """Whether that storage is a database, and no file in the study's folder."""
    return name not in FILES


@contextmanager
def only_client(name: str, ledger: str) -> Iterator[Hold | None]:
    """Hold a study in a database for this process alone; files need no more than their folder."""
    if not in_database(name):
        yield None
        return
    from afi_search.study.database import Hold

    hold = Hold(name, ledger)
    try:
        yield hold
    finally:
        hold.release()


class _Connection(sqlite3.Connection):
    """One that does not wait for the disk: a power failure costs what checkpoints bring back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")
