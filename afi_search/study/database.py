"""A ledger in PostgreSQL: held by one driver, and waited for while the database is away."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Lock, Thread
from typing import Any, cast

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy import Connection, Engine, Row, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.event import listen
from sqlalchemy.exc import (
    ArgumentError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool

from afi_search.files import without_secret
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
_HOLDS = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = %(pid)s"
_SILENCE = 15.0
_ENDED_AGAIN = "This connection is closed"
"""What SQLAlchemy says where sessions end faster than its pool makes others."""
_logger = logging.getLogger(__name__)


class Hold:
    """A study in a database, held for this process alone.

    PostgreSQL's advisory lock is its session's, and a session ends when the database restarts, an
    administrator ends it or the network fails. A thread sees to it every two seconds, so that
    no timeout of idle sessions ends it, and takes the lock again in a new session. This process may
    have been asleep: so every transaction of the study, too, begins with the question whether the
    session still has the lock.

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
        self._called: float | None = None
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
            raise StorageError(f"--storage {without_secret(name)}: {cause(error)}") from None
        self._threads = [Thread(target=each, daemon=True) for each in (self._keep, self._watch)]
        for thread in self._threads:
            thread.start()

    def fence(self, engine: Engine) -> None:
        """Let an engine begin no transaction after another driver has taken the study."""
        listen(engine, "checkout", partial(self._require_lock, engine.dialect.loaded_dbapi.Error))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Say so where a call takes long: a suspended server neither answers nor ends sessions."""
        self._called = time.monotonic()
        try:
            yield
        finally:
            self._called = None

    def require(self) -> None:
        """Raise a StorageError where another driver is known to have taken the study."""
        if self._lost:
            raise StorageError(
                f"another driver has taken the study {self._ledger} while the database was away"
            )

    def renew(self) -> None:
        """Look whether the lock is still held, and take it again where it is not.

        Raises:
            SQLAlchemyError: the database is away.
            StorageError: another driver has taken the study.
        """
        with self._alone:
            self.require()
            try:
                assert self._connection is not None
                self._connection.execute(text("SELECT 1"))
            except (SQLAlchemyError, AssertionError):
                self._drop()
                self._take()

    def release(self) -> None:
        """Let the study go."""
        self._end.set()
        for thread in self._threads:
            thread.join()
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
            self.require()
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
                f"--storage {without_secret(self._name)}: its sessions are shared out among "
                f"clients, as by PgBouncer with pool_mode = transaction, and no driver could hold "
                f"a study in them; name the database itself, or a pool of pool_mode = session"
            )

    def _require_lock(self, broken: type[Exception], connection: Any, *_: Any) -> None:
        """Ask in a connection of the pool, which then is known to be alive as well."""
        assert self._session is not None
        try:
            held = connection.execute(_HOLDS, {"pid": self._session.pid}).fetchone()
        except broken:
            raise InvalidatePoolError from None  # the pool makes another
        if held is None and not self._lost:
            self.renew()

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

    def _watch(self) -> None:
        told = None
        while not self._end.wait(_SILENCE / 15):
            called = self._called
            if called not in (None, told) and time.monotonic() - called > _SILENCE:
                told = called
                _logger.warning("The database is silent; the study waits for it.")


class HeldStorage:
    """A storage in a database that waits while the database is away; nothing it is told is lost."""

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
            with self._hold.watched():
                if method.__name__.startswith(_WRITES):
                    self._hold.require()
                return method(*args, **kwargs)
        except (StorageInternalError, SQLAlchemyError) as error:
            if not _is_away(error):
                raise
            _logger.warning("The database is away (%s); the study waits for it.", cause(error))
        call = again or partial(method, *args, **kwargs)
        end = time.monotonic() + (0 if self._gave_up else _PATIENCE)
        while True:
            try:
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


def open_database(name: str, hold: Hold | None = None) -> BaseStorage:
    """Open Optuna's storage in the database of a URL, for the driver that holds a study there."""
    url = postgresql(name).render_as_string(hide_password=False)
    try:
        settings = {"pool_pre_ping": True, "connect_args": _CONNECTS}
        storage = RDBStorage(url, engine_kwargs=settings)
    except ImportError:
        raise StorageError(_NO_DRIVER) from None
    if hold is None:
        return get_storage(storage)
    hold.fence(storage.engine)
    return cast(BaseStorage, HeldStorage(get_storage(storage), hold))


def postgresql(name: str) -> URL:
    """Read a database's URL, with the driver that the extra `postgres` installs.

    Raises:
        StorageError: it is no address of a PostgreSQL database.
    """
    try:
        url = make_url(name)
    except (ArgumentError, ValueError):  # of a port that is no number
        url = None
    if url is None or url.get_backend_name() != "postgresql":
        raise StorageError(
            f"--storage {without_secret(name)!r} must be journal, sqlite, or postgresql://USER@HOST/DATABASE"
        )
    return url.set(drivername="postgresql+psycopg")


def cause(error: BaseException) -> str:
    """Return the first line of what the database itself said."""
    while error.__cause__ is not None:
        error = error.__cause__
    original = getattr(error, "orig", None) or error
    return (str(original).splitlines() or [type(original).__name__])[0]


def _is_away(error: BaseException | None) -> bool:
    """Whether an error says that the database cannot be reached, for now."""
    while error is not None:
        if isinstance(error, OperationalError | InterfaceError) or str(error) == _ENDED_AGAIN:
            return True
        error = error.__cause__
    return False
