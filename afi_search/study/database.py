"""A ledger in PostgreSQL: held by one driver, and waited for while the database is away."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Lock, Thread, Timer
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy import Connection, Row, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from afi_search.study.journal import StorageError

_HEARTBEAT = 2.0
_PATIENCE = 600.0
_NO_DRIVER = "PostgreSQL needs an extra that is not installed: pip install -e '.[postgres]'"
_CONNECTS = {  # notices within seconds that the database's machine is gone
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_WRITES = ("set_", "create_", "delete_")
_OWN_SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_SILENCE = 15.0
_logger = logging.getLogger(__name__)


class Hold:
    """A study in a database, held for this process alone.

    PostgreSQL's advisory lock is its session's, and a session ends when the database restarts, an
    administrator ends it or the network fails. A thread sees to it every two seconds, so that
    no timeout of idle sessions ends it, and takes the lock again in a new session; so does whoever
    is about to write, as this process may have been asleep.

    Args:
        name: URL of the database.
        ledger: the study's name in it.

    Raises:
        StorageError: another process holds it, the database cannot be reached, or a pooler stands
            before it that shares its sessions out, and a lock with them.
    """

    def __init__(self, name: str, ledger: str) -> None:
        self._name = name
        self._ledger = ledger
        key = hashlib.sha256(ledger.encode()).digest()[:8]
        self._key = int.from_bytes(key, "big", signed=True)
        self._connection: Connection | None = None
        self._session: Row[Any] | None = None
        self._lost = False
        self._alone = Lock()
        self._end = Event()
        try:
            self._engine = create_engine(
                postgresql(name),
                poolclass=NullPool,
                isolation_level="AUTOCOMMIT",  # a lock needs no transaction that could time out
                connect_args=_CONNECTS,
            )
            self._take()
        except ImportError:
            raise StorageError(_NO_DRIVER) from None
        except SQLAlchemyError as error:
            raise StorageError(f"--storage {name}: {cause(error)}") from None
        self._thread = Thread(target=self._keep, name="afi_search hold", daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Look whether the lock is still held, and take it again where it is not.

        Raises:
            SQLAlchemyError: the database is away.
            StorageError: another driver has taken the study.
        """
        with self._alone:
            self._require()
            try:
                assert self._connection is not None
                self._connection.execute(text("SELECT 1"))
            except (SQLAlchemyError, AssertionError):
                self._drop()
                self._take()

    def release(self) -> None:
        """Let the study go."""
        self._end.set()
        self._thread.join()
        self._let_go()
        self._engine.dispose()

    def _take(self) -> None:
        """Take the lock in a new session, from our own former one where that still lives."""
        connection = self._engine.connect()
        if self._session is not None:
            end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            of_former = "WHERE pid = :pid AND backend_start = :backend_start"
            connection.execute(text(f"{end} {of_former}"), dict(self._session._mapping))
        key = {"key": self._key}
        if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar():
            connection.close()
            self._lost = self._session is not None
            self._require()
            raise StorageError(
                f"another driver is at work on the study {self._ledger} in that database; wait for "
                f"it, or stop it first"
            )
        self._session = connection.execute(text(_OWN_SESSION)).one()
        self._connection = connection
        with self._engine.connect() as another:
            is_shared_out = another.execute(text(_OWN_SESSION)).one() == self._session
        if is_shared_out:
            self._let_go()
            raise StorageError(
                f"--storage {self._name}: its sessions are shared out among clients, as by "
                f"PgBouncer with pool_mode = transaction, and no driver could hold a study in "
                f"them; name the database itself, or a pool of pool_mode = session"
            )

    def _require(self) -> None:
        if self._lost:
            raise StorageError(
                f"another driver has taken the study {self._ledger} while the database was away"
            )

    def _let_go(self) -> None:
        if self._connection is not None:  # a server notices a closed connection only later
            with suppress(SQLAlchemyError):
                self._connection.execute(text("SELECT pg_advisory_unlock_all()"))
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()
                connection.close()

    def _keep(self) -> None:
        while not self._end.wait(_HEARTBEAT):
            try:
                self.renew()
            except SQLAlchemyError:  # it is away: the next time, perhaps
                continue
            except StorageError:
                return


class HeldStorage:
    """A storage in a database that waits while the database is away; nothing it is told is lost.

    Args:
        storage: Optuna's.
        hold: of the study.
    """

    def __init__(self, storage: BaseStorage, hold: Hold) -> None:
        self._storage = storage
        self._hold = hold
        self._gave_up = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name == "create_new_trial":
            return self._create_new_trial
        return partial(self._patiently, method) if callable(method) else method

    def _create_new_trial(self, study_id: int, template: Any = None) -> Any:
        """Create a trial once, even if the database went away after it had been created."""
        count = self.get_n_trials(study_id)

        def create() -> int:
            trials = self._storage.get_all_trials(study_id, deepcopy=False)
            if len(trials) > count:
                return trials[-1]._trial_id
            return self._storage.create_new_trial(study_id, template)

        return self._patiently(self._storage.create_new_trial, study_id, template, again=create)

    def _patiently(self, method: Any, *args: Any, again: Any = None, **kwargs: Any) -> Any:
        """Call a method until the database answers.

        Raises:
            StorageError: another driver has taken the study, or the database stays away.
        """
        try:
            with _silence_told():
                if method.__name__.startswith(_WRITES):
                    self._hold.renew()
                return method(*args, **kwargs)
        except (StorageInternalError, SQLAlchemyError) as error:
            if not _is_away(error):
                raise
            _logger.warning("The database is away (%s); the study waits for it.", cause(error))
        call = again or partial(method, *args, **kwargs)
        end = time.monotonic() + (0 if self._gave_up else _PATIENCE)
        while True:
            try:
                self._hold.renew()
                answer = call()
            except UpdateFinishedTrialError:  # the first call got as far as that
                answer = True
            except (StorageInternalError, SQLAlchemyError) as error:
                if not _is_away(error):
                    raise
                if time.monotonic() > end:
                    self._gave_up = True
                    minutes = round(_PATIENCE / 60)
                    raise StorageError(
                        f"the ledger's database has been away for {minutes} minutes: {cause(error)}"
                    ) from None
                time.sleep(1)
                continue
            _logger.warning("The database is there again.")
            return answer


def open_database(name: str) -> BaseStorage:
    """Open Optuna's storage in the database of a URL."""
    url = postgresql(name).render_as_string(hide_password=False)
    try:
        settings = {"pool_pre_ping": True, "connect_args": _CONNECTS}
        return get_storage(RDBStorage(url, engine_kwargs=settings))
    except ImportError:
        raise StorageError(_NO_DRIVER) from None


def postgresql(name: str) -> URL:
    """Read a database's URL, with the driver that the extra `postgres` installs.

    Raises:
        StorageError: it is none of a PostgreSQL database.
    """
    try:
        url = make_url(name)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql":
        raise StorageError(
            f"--storage {name!r} must be journal, sqlite, or postgresql://USER@HOST/DATABASE"
        )
    return url.set(drivername="postgresql+psycopg")


@contextmanager
def _silence_told() -> Iterator[None]:
    """Say so where a call takes long: a suspended server neither answers nor ends its sessions."""
    telling = Timer(_SILENCE, _logger.warning, ("The database is silent; the study waits for it.",))
    telling.daemon = True
    telling.start()
    try:
        yield
    finally:
        telling.cancel()


def cause(error: BaseException) -> str:
    """Return the first line of what the database itself said."""
    while error.__cause__ is not None:
        error = error.__cause__
    original = getattr(error, "orig", None) or error
    return (str(original).splitlines() or [type(original).__name__])[0]


def _is_away(error: BaseException | None) -> bool:
    """Whether an error says that the database cannot be reached, for now."""
    while error is not None:
        if isinstance(error, OperationalError | InterfaceError):
            return True
        error = error.__cause__
    return False
