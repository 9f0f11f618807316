"""Ray in this process: started for it and its user alone, or a cluster that others may join."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import grpc
import psutil
import ray
from filelock import FileLock, Timeout
from ray._common.utils import get_ray_address_file
from ray._private import node as ray_node
from ray._private import ray_constants, services, utils
from ray._private import worker as ray_worker
from ray._private.grpc_utils import init_grpc_channel
from ray._raylet import Config, wait_for_persisted_port  # type: ignore[attr-defined]
from ray.core.generated import gcs_service_pb2
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from afi_search.engine import blamed, cannot_read
from afi_search.engine.ray_guard import LOCK_FILE, RayGuard, end_processes_of
from afi_search.engine.room import too_little
from afi_search.errors import UserError, last_line
from afi_search.formatting import printable

if TYPE_CHECKING:
    from afi_search.study.study import Study

_HOST_AND_PORT = re.compile(r"(?!.*//)\S+:[0-9]{1,5}")
_SECONDS_TO_ANSWER = 8
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_OF_SILENCE = 40  # after 60 Ray itself ends this process
_SECONDS_FOR_A_PART, _SECONDS_TO_START = 180, 400
"""Ray gives up on its dashboard after 60 seconds and on its raylet after 30: too few under load."""
_LATER = "where the machine is busy, try again later"
_PARTS = {"gcs_server", "raylet"}
_LAST_WORDS = re.compile(r"(?m)^\[\S+ \S+ C .*?\] .*?:\d+: *(.*)")
_PREFIX, _SECONDS_TO_LOCK = "afi-", 60
_LONGEST_PLACE = 20
"""Of the 107 bytes that the path of a socket may have, our folder and Ray's take the rest."""
_LEAST_PORTS = 64
_LEAST_FREE = 16 << 20
"""Bytes for the logs of a Ray that starts; on a full disk it is silent."""
_LOOPBACK = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
"""Where it is off, Ray listens on 127.0.0.1 alone, as on macOS; its processes inherit it."""
_TOKEN, _TOKEN_FILE, _AUTH_MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
_OURS = (_LOOPBACK, _TOKEN_FILE, _AUTH_MODE, "TMPDIR")
_BYTES_OF_A_SIGACTION = 1024
"""At the least: Linux's have 152."""
_THREAD = ThreadPoolExecutor(1, "ray")
"""It starts and stops Ray; Linux kills Ray's processes when the thread that started them ends."""


class EngineError(UserError):
    """Ray or the machine cannot do what the study asks of it.

    Attributes:
        study: that was stopped by it; None where none had begun.
    """

    study: Study | None = None


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster to join.

    Attributes:
        address: HOST:PORT of its head.
        owner: the user who started it, where `auto` found it on this machine.
        wants_token: whether it lets in only who has its token.
    """

    address: str
    owner: str = ""
    wants_token: bool = False

    def __str__(self) -> str:
        return self.address + (f", which {self.owner} started" if self.owner else "")


def find_cluster(address: str) -> Cluster:
    """Return the cluster at an address, which answers.

    Args:
        address: HOST:PORT; `auto`: what RAY_ADDRESS names, or what this user started here by
            `ray start`, for others to join. The Ray of another search is not.

    Raises:
        EngineError: no cluster answers within ten seconds, or it does not let us in.
    """
    cluster = _started_here() if address == "auto" else Cluster(address)
    if not _HOST_AND_PORT.fullmatch(cluster.address):
        found = f", and here it is {cluster.address!r}" if address == "auto" else ""
        raise EngineError(
            f"--address {address}: must be HOST:PORT of a Ray cluster's head, like "
            f"10.0.0.5:6379, or auto, which takes RAY_ADDRESS or what `ray start` wrote{found}"
        )
    try:
        return replace(cluster, wants_token=_wants_token(cluster.address))
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise EngineError(
                f"--address {address}: the Ray cluster {cluster} does not let us in: it wants the "
                f"token of its head in {_TOKEN}, or in a file: ~/.ray/auth_token, {_TOKEN_FILE}"
            ) from None
        raise EngineError(
            f"--address {address}: no Ray cluster answers at {cluster} ({error.code().name}); "
            f"start one there with `ray start --head`, or leave --address out"
        ) from None


def _wants_token(address: str) -> bool:
    """Ask without a token, then with one; who has one where none is wanted loses its actors."""
    for mode in ("disabled", "token"):
        with _environment({_AUTH_MODE: mode}):
            try:
                _ask(address)
            except grpc.RpcError as error:
                if mode == "token" or error.code() != grpc.StatusCode.UNAUTHENTICATED:
                    raise
            else:
                break
    return mode == "token"


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while, also for the Ray of this process."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    Config.initialize("")
    try:
        yield
    finally:
        _restore(before)


def _restore(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    Config.initialize("")


def _ask(address: str) -> None:
    with init_grpc_channel(address, (("grpc.enable_http_proxy", 0),)) as channel:
        request = gcs_service_pb2.CheckAliveRequest()  # type: ignore[attr-defined]
        NodeInfoGcsServiceStub(channel).CheckAlive(request, timeout=_SECONDS_TO_ANSWER)


def _started_here() -> Cluster:
    named = os.environ.get("RAY_ADDRESS") or "auto"
    if named != "auto":
        return Cluster(named)
    path = Path(get_ray_address_file(None))
    try:
        address = path.read_text(encoding="utf-8", errors="replace").strip()
        if path.stat().st_uid != os.getuid():
            raise EngineError(
                f"--address auto: the Ray cluster {Cluster(address, _owner(path))}, is another "
                f"user's: its workers may not write what a search of yours writes; leave --address "
                f"out"
            )
        return Cluster(address, _owner(path))
    except FileNotFoundError:
        raise EngineError(
            "--address auto: no Ray cluster was started on this machine for others to join; "
            "`ray start --head` starts one, and RAY_ADDRESS or --address HOST:PORT names one "
            "elsewhere"
        ) from None


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"


class RaySession:
    """Ray on this machine, or a cluster to join, until the end of a `with` block.

    It is started in the background, as that takes seconds, once it has to `begin`.

    Args:
        address: of a running cluster, as `find_cluster` takes it; None: Ray is started here.
        lost: called in a thread of its own where Ray has died, with how; calls into Ray may then
            wait for a minute, after which Ray ends this process.

    Raises:
        EngineError: no cluster answers there.
    """

    def __init__(
        self, address: str | None = None, lost: Callable[[str], None] | None = None
    ) -> None:
        self._cluster = None if address is None else find_cluster(address)
        self._lost = lost
        self._over = Event()
        self._dashboard: Future[str] | None = None
        self._folder: Path | None = None
        self._guard: RayGuard | None = None
        self._environment: dict[str, str | None] = {}

    def begin(self) -> None:
        """Begin to start Ray, if that has not begun."""
        if self._dashboard is None:
            self._dashboard = _THREAD.submit(self._start)

    def wait(self) -> str:
        """Wait until Ray is there; return where its dashboard is, in words.

        Raises:
            EngineError: Ray does not start, or this process has a session already.
        """
        self.begin()
        assert self._dashboard is not None
        try:
            return self._dashboard.result(_SECONDS_TO_START)
        except TimeoutError:
            reason = f"it is not there after {_SECONDS_TO_START} seconds"
            raise self._not_started(reason, _SECONDS_TO_START) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: object = None, error: BaseException | None = None, where: object = None
    ) -> None:
        """Stop Ray, or leave the cluster; where it is still starting, without waiting for that.

        Raises:
            UserError: the `error` is about a setting that Ray has read only now.
        """
        if self._dashboard is not None:
            has_started = self._dashboard.done()
            stopped = _THREAD.submit(self._stop)
            if has_started:
                stopped.result()
        if error is not None and (settings := blamed(error)):
            raise cannot_read(settings) from None

    def _start(self) -> str:
        if ray.is_initialized():
            raise EngineError("Ray is at work in this process already; call ray.shutdown() first")
        where: dict[str, Any] = {}
        self._environment = {name: os.environ.get(name) for name in _OURS}
        if self._cluster is not None:
            os.environ[_AUTH_MODE] = "token" if self._cluster.wants_token else "disabled"
        else:
            if short := too_little(shared=_shared_memory()):
                raise EngineError(short)
            _demand_ports()
            self._folder, self._lock = _private_folder()
            self._guard = RayGuard(self._folder)
            os.environ.update(_for_itself(self._folder))
            where = {"include_dashboard": True, "_temp_dir": f"{self._folder}/ray"}
        Config.initialize("")
        ray_constants.ENABLE_RAY_CLUSTER = self._cluster is not None  # it has been read already
        ray_worker._worker_logs_enabled = False  # log_to_driver lets through that a process died
        address = "local" if self._cluster is None else self._cluster.address
        context: Any = None
        began = time.monotonic()
        for may_fail in (True, True, False):
            try:
                with _unchanged_handler(signal.SIGTERM):
                    context = ray.init(
                        address, logging_level=logging.CRITICAL, log_to_driver=False, **where
                    )
                break
            except Exception as error:
                if self._folder is None or not (may_fail and isinstance(error, ChildProcessError)):
                    seconds = time.monotonic() - began
                    raise self._not_started(_in_a_line(error, seconds), seconds) from None
                end_processes_of(self._folder)
                psutil.wait_procs(_parts(), timeout=_SECONDS_TO_ANSWER)
        joined = f" of the cluster {self._cluster}" if self._cluster else ""
        if self._lost is not None:
            Thread(target=self._watch, args=(self._lost,), daemon=True).start()
        if not context.dashboard_url:
            return f"none{joined}"
        return f"http://{context.dashboard_url}{joined} ({_who_may_open()})"

    def _not_started(self, reason: str, seconds: float) -> EngineError:
        is_late = seconds >= _SECONDS_FOR_A_PART
        reason += self._last_words() or (f"; {_LATER}" if is_late else "")
        logs = ""
        if self._guard is not None:
            self._guard.finish(keep=True)
            self._guard, logs = None, f"; its logs are in {self._folder} for a day"
        return EngineError(
            f"Ray does not start on {self._cluster or 'this machine'}: {reason}{logs}"
        )

    def _last_words(self) -> str:
        """Return what a part of Ray that ended itself has written of it in its log."""
        logs = () if self._folder is None else self._folder.glob("ray/session_latest/logs/*.out")
        for log in logs:
            if words := _LAST_WORDS.findall(log.read_text(errors="replace")):
                return f": {words[-1]}"
        return ""

    def _watch(self, lost: Callable[[str], None]) -> None:
        node: Any = ray_worker._global_node
        answered = time.monotonic()
        while not self._over.wait(_SECONDS_BETWEEN_LOOKS):
            if self._cluster is None:
                dead = {kind for kind, _ in node.dead_processes()} & _PARTS
                reason = f"Ray's process {min(dead)} was killed or has died" if dead else ""
            else:
                with suppress(grpc.RpcError):
                    _ask(self._cluster.address)
                    answered = time.monotonic()
                silent = time.monotonic() - answered > _SECONDS_OF_SILENCE
                reason = f"the Ray cluster {self._cluster} is silent" if silent else ""
            if reason:
                lost(reason)
                return

    def _stop(self) -> None:
        self._over.set()
        if not self._environment:  # nothing was started: the Ray in this process is its caller's
            return
        ray.shutdown()
        if self._guard is not None:
            self._guard.finish()
        _restore(self._environment)
        ray_constants.ENABLE_RAY_CLUSTER = True


@contextmanager
def _unchanged_handler(number: int) -> Iterator[None]:
    """Keep the process's handler of a signal: Ray's prints the stack, ten lines of addresses.

    `signal.signal` would do, but in the main thread alone.
    """
    libc, handler = ctypes.CDLL(None), ctypes.create_string_buffer(_BYTES_OF_A_SIGACTION)
    libc.sigaction(number, None, handler)
    try:
        yield
    finally:
        libc.sigaction(number, handler, None)


def _in_a_line(error: Exception, seconds: float) -> str:
    """Return what an error of Ray's start says that came after so many seconds.

    That of its dashboard is the end of the dashboard's log.
    """
    if "dashboard" not in str(error):
        return last_line(error).rstrip(".")
    if seconds < _SECONDS_FOR_A_PART:
        return f"its dashboard ended at once: {last_line(error)}"
    return f"its dashboard was not there after {_SECONDS_FOR_A_PART} seconds"


def _patiently(look: Callable[[], Any], part: str) -> Any:
    """Look until a part is found: Ray gives up too soon, keeps the GIL, or ends this process."""
    deadline = time.monotonic() + _SECONDS_FOR_A_PART
    while True:
        try:
            return look()
        except (RuntimeError, ray.exceptions.RaySystemError, grpc.FutureTimeoutError) as error:
            for each in _parts():
                if each.status() == psutil.STATUS_ZOMBIE:  # a raylet waits 15 s for its agents
                    raise ChildProcessError(f"its {each.name()} has died") from None
            if time.monotonic() > deadline:
                raise TimeoutError(f"its {part} does not answer: {error}") from None
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _parts() -> list[psutil.Process]:
    """Return the processes without which there is no Ray, those among them that have died."""
    return [child for child in psutil.Process().children() if child.name() in _PARTS]


def _find_patiently(address: str, node: str) -> Any:
    """Return what Ray knows of a node, once its raylet answers."""
    Config.initialize(dumps({"raylet_start_wait_time_s": 1}))  # so long Ray waits itself

    def look() -> Any:
        found = _find_node(address, node)
        if not ray_constants.ENABLE_RAY_CLUSTER:
            with grpc.insecure_channel(f"127.0.0.1:{found['node_manager_port']}") as channel:
                grpc.channel_ready_future(channel).result(_SECONDS_TO_ANSWER)
        return found

    return _patiently(look, "raylet")


def _find_port_patiently(folder: str, node: str, part: str, timeout_ms: int) -> Any:
    return _patiently(lambda: wait_for_persisted_port(folder, node, part, timeout_ms=0), part)


def _printable_command() -> str:
    """Return the command that Ray shows of its job, also where a path in it is no UTF-8."""
    return printable(_command())


_command, utils.get_entrypoint_name = utils.get_entrypoint_name, _printable_command
_find_node, services.get_node = services.get_node, _find_patiently
ray_node.wait_for_persisted_port = _find_port_patiently  # type: ignore[attr-defined]
ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S = _SECONDS_FOR_A_PART


def _shared_memory() -> int:
    """Return how many bytes Ray's processes are going to share."""
    return int(utils.resolve_object_store_memory(utils.estimate_available_memory()))


def _demand_ports() -> None:
    """Make sure that there are ports for Ray's processes, which wait for minutes otherwise."""
    try:
        with ExitStack() as taken:
            for _ in range(_LEAST_PORTS):
                server = taken.enter_context(socket.create_server(("127.0.0.1", 0)))
            socket.create_connection(server.getsockname(), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise EngineError(
            f"Ray's processes need {_LEAST_PORTS} free ports of 127.0.0.1, and open files for "
            f"them: {os.strerror(error.errno or 0)}; `ip addr`, `ss` and `ulimit -n` show what "
            f"there is"
        ) from None


def _private_folder() -> tuple[Path, FileLock]:
    """Make a folder that only we enter, locked while it is in use; delete those that are not."""
    for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")):
        with suppress(OSError):
            has_room = shutil.disk_usage(place).free >= _LEAST_FREE
            if has_room and len(os.fsencode(place)) <= _LONGEST_PLACE:
                folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
                lock = FileLock(folder / LOCK_FILE)
                lock.acquire()
                _sweep(Path(place))
                return folder, lock
    raise EngineError(
        f"Ray's sockets and logs need a folder that can be written, with {_LEAST_FREE >> 20} MB "
        f"free, whose path is no longer than {_LONGEST_PLACE} characters; name one with TMPDIR"
    )


def _sweep(place: Path) -> None:
    """Delete what killed processes of this user have left, and logs that were kept long enough."""
    for locked in place.glob(f"{_PREFIX}*/{LOCK_FILE}"):
        with suppress(OSError, Timeout):
            found = locked.stat()
            is_old = time.time() - found.st_mtime > _SECONDS_TO_LOCK
            if is_old and found.st_uid == os.getuid():
                with FileLock(locked, timeout=0):
                    shutil.rmtree(locked.parent, ignore_errors=True)


def _for_itself(folder: Path) -> dict[str, str]:
    """Return the variables with which a Ray is heard by this machine and this user alone."""
    needed = {_LOOPBACK: "0"}
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_PLACE:
        needed["TMPDIR"] = str(folder)
    if _asks_for_token() and not os.environ.keys() & {_TOKEN, _TOKEN_FILE}:
        try:
            _keep_private(Path.home() / ".ray" / "auth_token")
        except (OSError, RuntimeError):  # there is no home, or none to write to
            _keep_private(folder / "token")
            needed[_TOKEN_FILE] = str(folder / "token")
    return needed


def _keep_private(token: Path) -> None:
    """Make sure that there is a token, and that only this user can read it; Ray lets all read."""
    token.parent.mkdir(parents=True, exist_ok=True)
    if token.exists():
        token.chmod(0o600)
        return
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def _asks_for_token() -> bool:
    return os.environ.get(_AUTH_MODE, "token").lower() == "token"


def _who_may_open() -> str:
    if not _asks_for_token():
        return f"open to whoever reaches it, as {_AUTH_MODE} is {os.environ[_AUTH_MODE]}"
    place = os.environ.get(_TOKEN_FILE)
    return f"its token: {f'in {place}' if place else 'ray get-auth-token'}"
