"""Ray as a run starts it: heard by this machine and this user alone, and stopped when asked."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import psutil
import pytest
import ray
from ray._private import utils

from afi_search.engine import ray_session
from afi_search.engine.ray_guard import LOCK_FILE, RayGuard, processes_of
from afi_search.engine.ray_session import EngineError, RaySession, find_cluster
from tests.driver import SPACE, Driver, matching

SOMEBODY = 65534


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """A run in its first trial, in a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "long" / ("x" * 100)))
    Path(os.environ["TMPDIR"]).mkdir(parents=True)
    (tmp_path / "tiny.yaml").write_text(SPACE.replace("epochs: 4", "epochs: 400"))
    driver = Driver(tmp_path, "tiny.yaml")
    driver.wait_for(r"trial 0 .*epoch 2/400")
    yield driver
    driver.process.kill()


def listening(process: psutil.Process) -> set[tuple[str, str, int]]:
    """Return the names of the processes of a tree that listen, their addresses and ports."""
    return {
        (each.name(), connection.laddr.ip, connection.laddr.port)
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


SERVICES = (
    *("NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVKeys"),
    *("JobInfoGcsService/GetAllJobInfo", "NodeManagerService/GetNodeStats"),
    *("ObjectManagerService/Pull", "CoreWorkerService/GetCoreWorkerStats"),
    *("ReporterService/GetTraceback", "LogService/ListLogs"),
)


def asked_without_a_token(process: psutil.Process) -> dict[str, list[str]]:
    """Ask all that listens below a process; the agent's metrics alone are there for all here."""
    answers: dict[str, list[str]] = {"gRPC": [], "HTTP": []}
    for port in {port for _, _, port in listening(process)}:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for service in SERVICES:
                try:
                    channel.unary_unary(f"/ray.rpc.{service}")(b"", timeout=20)
                    answers["gRPC"].append(f"OK: {service}")
                except grpc.RpcError as error:
                    answers["gRPC"].append(error.code().name)
        for path in ("api/jobs/", "nodes?view=summary", "logs/"):
            try:
                with urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as page:
                    if b"# HELP" not in page.read():
                        answers["HTTP"].append(f"OK: {path}")
            except HTTPError as error:
                answers["HTTP"].append(str(error.code))
            except (OSError, HTTPException):  # it speaks no HTTP
                continue
    return answers


def is_loopback(text: str) -> bool:
    address = ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def test_nobody_else_hears_or_reads_a_run_and_a_second_ctrl_c_stops_it_at_once(
    driver: Driver, tmp_path: Path
) -> None:
    heard = listening(psutil.Process(driver.process.pid))
    assert len({name for name, _, _ in heard}) > 4
    assert {place for place in heard if not is_loopback(place[1])} == set()

    folder, token = driver.ray_folder, tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert "its token: ray get-auth-token" in driver.output
    if os.getuid() == 0:
        tmp_path.chmod(0o755)  # as a home may be
        for command in (
            ["ls", str(folder)],
            ["ls", f"{folder}/ray/session_latest/logs"],
            ["touch", f"{folder}/x"],
            ["cat", str(token)],
            ["cp", "/dev/null", str(token)],
        ):
            tried = subprocess.run(command, user=SOMEBODY, capture_output=True, text=True)
            assert "Permission denied" in tried.stderr

    answers = asked_without_a_token(psutil.Process(driver.process.pid))
    assert not [answer for answer in answers["gRPC"] if answer.startswith("OK")], answers
    assert answers["gRPC"].count("UNAUTHENTICATED") >= 6, answers
    assert {"401"} == set(answers["HTTP"]), answers

    processes = driver.descendants("ResourceTrainable", "gcs_server", "raylet/raylet")
    assert len(processes) >= 3
    driver.process.send_signal(signal.SIGINT)
    driver.wait_for("Stopping: .* Ctrl-C again stops at once")
    driver.process.send_signal(signal.SIGINT)
    assert driver.end() == 130
    assert "Front of" not in driver.output
    assert "Traceback" not in driver.output
    assert psutil.wait_procs(processes, timeout=60)[1] == []


@pytest.fixture
def nobody_listens() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_the_ray_of_the_caller_is_told_and_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: stopped.append(True))
    with pytest.raises(EngineError, match="in this process already"), RaySession() as session:
        session.wait()
    assert not stopped


def test_a_dead_address_is_told(nobody_listens: str) -> None:
    with pytest.raises(EngineError, match=f"no Ray cluster answers at {nobody_listens}"):
        find_cluster(nobody_listens)


def test_what_is_no_ray_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineError, match="no Ray cluster answers"):
            find_cluster(address)


NO_ADDRESSES = [
    "head",
    "head:",
    ":6379",
    "ray://head:10001",
    "head:port",
    "",
    "ho st:1",
    "h:1\nh:2",
]


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(EngineError, match="must be HOST:PORT"):
        find_cluster(address)


@pytest.mark.parametrize("named", ["ray://head:10001", "local", "head"])
def test_auto_says_what_ray_address_has_in_place_of_an_address(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(
        EngineError, match=f"must be HOST:PORT .*RAY_ADDRESS.* here it is '{named}'"
    ):
        find_cluster("auto")


@pytest.mark.parametrize("content", [b"", b"garbage", "127.0.0.1:1".encode("utf-16")])
def test_auto_says_what_is_no_address_in_the_file_of_ray_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_bytes(content)
    with pytest.raises(EngineError, match=r"must be HOST:PORT .*`ray start` wrote, and here it is"):
        find_cluster("auto")


def test_auto_finds_nothing_where_nothing_was_started_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(EngineError, match="no Ray cluster was started on this machine"):
        find_cluster("auto")


def test_auto_says_whose_cluster_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody_listens: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    path = tmp_path / "ray" / "ray_current_cluster"
    path.write_text(nobody_listens)
    with pytest.raises(EngineError, match=f"{nobody_listens}, which {path.owner()} started"):
        find_cluster("auto")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:6379")
    with pytest.raises(EngineError, match=r"no Ray cluster answers at nowhere\.invalid:6379"):
        find_cluster("auto")


def test_auto_does_not_join_another_users_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers may not write into folders of this user, nor this one into its session's."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    path = tmp_path / "ray" / "ray_current_cluster"
    path.write_text("10.0.0.5:6379")
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(EngineError, match=f"which {path.owner()} started, is another user's"):
        find_cluster("auto")


@pytest.mark.parametrize(
    "killed", ["raylet/raylet", pytest.param("gcs_server", marks=pytest.mark.slow)]
)
def test_where_a_process_of_ray_is_killed_it_is_told_how_to_go_on(
    driver: Driver, killed: str
) -> None:
    for process in driver.descendants(killed):
        process.kill()

    assert driver.end() == 2
    told = driver.output.splitlines()[-1]
    name = killed.rpartition("/")[2]
    assert told.startswith(f"error: Ray's process {name} was killed")
    assert told.endswith("Nothing is lost; the same command resumes it.")
    assert "Traceback" not in driver.output


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_session, "_LONGEST_PLACE", 1000)
    monkeypatch.setattr(ray_session, "_SECONDS_TO_LOCK", -1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other = tmp_path / "afi-something-else"
    other.mkdir()
    left, lock = ray_session._private_folder()
    lock.release()
    used, held = ray_session._private_folder()

    assert not left.exists()
    ray_session._private_folder()
    assert used.exists()
    assert held.is_locked
    assert other.exists()


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EMFILE, errno.ENETUNREACH])
def test_where_ports_or_open_files_are_used_up_it_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(address: tuple[str, int]) -> socket.socket:
        raise OSError(number, "no")

    monkeypatch.setattr(socket, "create_server", refused)
    with pytest.raises(EngineError, match=rf"free ports of 127\.0\.0\.1, .*{os.strerror(number)}"):
        ray_session._demand_ports()


def test_a_full_disk_is_no_place_for_rays_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_session, "_LEAST_FREE", 1 << 60)
    with pytest.raises(EngineError, match=r"MB free, whose path .* name one with TMPDIR"):
        ray_session._private_folder()
    assert list(tmp_path.iterdir()) == []


def test_what_a_part_of_ray_wrote_before_it_ended_itself_is_told(tmp_path: Path) -> None:
    logs = tmp_path / "ray" / "session_latest" / "logs"
    logs.mkdir(parents=True)
    (logs / "gcs_server.out").write_text("[2026-11-27 16:38:34,139 I 22127 22127] a.cc:1: up\n")
    (logs / "raylet.out").write_text(
        "[2026-11-27 16:38:34,139 C 22127 22138] (raylet) dlmalloc.cc:161: create_buffer failed "
        "to open file /dev/shm/plasmaX, errorRead-only file system\n*** StackTrace ***\n"
    )
    session = RaySession()
    late = str(session._not_started("its raylet does not answer", 181.0))
    assert late.endswith("does not answer; where the machine is busy, try again later")
    session._folder = tmp_path
    told = str(session._not_started("its raylet does not answer", 181.0))
    assert told.split("does not answer")[1] == (
        ": create_buffer failed to open file /dev/shm/plasmaX, errorRead-only file system"
    )


def test_logs_of_a_ray_that_did_not_start_are_kept_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "afi-12345678"
    folder.mkdir()
    (folder / LOCK_FILE).touch()
    RayGuard(folder).finish(keep=True)
    ray_session._sweep(tmp_path)
    assert folder.exists()

    tomorrow = time.time() + 24 * 3600 + 100
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    ray_session._sweep(tmp_path)
    assert not folder.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a folder away")
def test_what_is_another_users_is_not_swept(tmp_path: Path) -> None:
    folder = tmp_path / "afi-12345678"
    folder.mkdir()
    (folder / LOCK_FILE).touch()
    os.utime(folder / LOCK_FILE, (0, 0))
    os.chown(folder / LOCK_FILE, SOMEBODY, SOMEBODY)
    ray_session._sweep(tmp_path)

    assert folder.exists()


@pytest.mark.parametrize(
    "stuck", ["raylet/raylet", pytest.param("gcs_server", marks=pytest.mark.slow)]
)
def test_ctrl_c_is_answered_while_a_part_of_ray_does_not_come_up(
    tmp_path: Path, stuck: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    driver = Driver(tmp_path, "tiny.yaml")
    while not (parts := driver.descendants(stuck)):
        time.sleep(0.02)
    for part in parts:
        part.suspend()
    time.sleep(2)
    driver.process.send_signal(signal.SIGINT)

    assert driver.end(60) == 130
    assert "Interrupted. Nothing is lost; the same command resumes it." in driver.output
    assert psutil.wait_procs(parts, timeout=60)[1] == []


@pytest.mark.slow
def test_a_raylet_that_dies_while_it_starts_is_started_again_and_told_at_once_if_it_dies_again(
    tmp_path: Path,
) -> None:
    """Under load, a raylet ends itself where its agent has not come up within 15 seconds."""
    (tmp_path / "tiny.yaml").write_text(SPACE)
    driver = Driver(tmp_path, "tiny.yaml")
    while not (parts := driver.descendants("raylet/raylet")):
        time.sleep(0.02)
    parts[0].kill()
    driver.wait_for("Ray dashboard: ")
    driver.process.send_signal(signal.SIGINT)
    assert driver.end() == 130

    driver = Driver(tmp_path, "tiny.yaml")
    while driver.process.poll() is None:
        for part in driver.descendants("raylet/raylet"):
            part.kill()
        time.sleep(0.02)
    assert driver.process.returncode == 2
    told = driver.output.splitlines()[-1]
    assert told.startswith(
        "error: Ray does not start on this machine: its raylet has died; its logs "
    )
    shutil.rmtree(re.findall(r"its logs are in (\S+) for a day", told)[0])


def test_a_part_of_ray_is_looked_for_until_it_is_there_whatever_ray_says_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_session, "_SECONDS_BETWEEN_LOOKS", 0)
    not_yet = [RuntimeError("no node"), ray.exceptions.RaySystemError("no GCS")]

    def look() -> str:
        if not_yet:
            raise not_yet.pop()
        return "there"

    assert ray_session._patiently(look, "raylet") == "there"


WAITING = """
import time
from afi_search.cli import in_words
from afi_search.engine.ray_session import RaySession

with in_words(), RaySession() as session:
    session.wait()
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_once_ray_is_there_sigterm_is_answered_in_our_words_alone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 130
    assert re.fullmatch(r"(\nStopping\. .*\n)?Interrupted\. .*\n", told)


IMPATIENT = """
from ray._private import ray_constants
from afi_search.engine import ray_session
from afi_search.engine.ray_guard import LOCK_FILE, RayGuard, processes_of
ray_session._SECONDS_TO_START = 40
ray_session._SECONDS_FOR_A_PART = ray_constants.RAY_DASHBOARD_STARTUP_TIMEOUT_S = 20
from afi_search.__main__ import main
main("main_of_run")
"""


@pytest.mark.parametrize(
    "seconds, told",
    [
        (3.0, "its dashboard ended at once: ModuleNotFoundError: No module named 'aiohttp_cors'"),
        (181.0, "its dashboard was not there after 180 seconds"),
    ],
)
def test_a_dashboard_that_ended_is_told_by_the_end_of_its_log(seconds: float, told: str) -> None:
    log = (
        "The last 20 lines of x/dashboard.err",
        "ModuleNotFoundError: No module named 'aiohttp_cors'",
    )

    assert ray_session._in_a_line(Exception("\n".join(log)), seconds) == told


@pytest.mark.slow
@pytest.mark.parametrize("stuck", ["gcs_server", "dashboard.py", "raylet/raylet"])
def test_a_part_of_ray_that_does_not_come_up_is_told(tmp_path: Path, stuck: str) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, "tiny.yaml"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    below = partial(psutil.Process(process.pid).children, recursive=True)
    while process.poll() is None:
        for part in matching(below, (stuck,)):
            part.suspend()
        time.sleep(0.05)
    assert process.stderr is not None
    told = process.stderr.read()

    assert process.returncode == 2, told
    assert told.splitlines()[-1].startswith("error: Ray does not start on this machine: ")
    assert "; where the machine is busy, try again later" in told.splitlines()[-1]
    assert "Traceback" not in told
    for logs in re.findall(r"its logs are in (\S+) for a day", told):
        shutil.rmtree(logs)


def test_a_worker_is_its_rays_by_what_it_has_open_and_not_another_rays(tmp_path: Path) -> None:
    """Its command line is `ray::` and a name, and its raylet may be dead."""
    workers = {}
    for name in ("ours", "others"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "worker.out").open("w") as log:
            command = ["bash", "-c", "exec -a ray::IDLE sleep 60"]
            workers[name] = subprocess.Popen(command, stdout=log)
    try:
        for worker in workers.values():
            while not "".join(psutil.Process(worker.pid).cmdline()).startswith("ray::"):
                time.sleep(0.05)
        found = {process.pid for process in processes_of(tmp_path / "ours")}
        assert found == {workers["ours"].pid}
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()


def test_a_command_with_a_path_that_is_no_utf_8_can_be_told_to_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["afi-search", os.fsdecode(b"caf\xe9")]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: command)
    assert utils.get_entrypoint_name() == r"afi-search caf\xe9"
