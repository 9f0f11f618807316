"""Where the limits of a shell or a container leave too little, it is told before anything hangs."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from afi_search.engine import room

SOMEBODY = 65534
linux = pytest.mark.skipif(sys.platform != "linux", reason="others do not keep the limits")


def limited(limit: int, size: int) -> Callable[[], None]:
    """Return what sets a limit in a new process."""
    return lambda: resource.setrlimit(limit, (size, size))


@linux
@pytest.mark.parametrize(
    ("command", "limit", "size", "told"),
    [
        ("run digits", resource.RLIMIT_AS, 6_000_000_000, "ulimit -v leaves 6,000,000,000 bytes"),
        ("run digits", resource.RLIMIT_DATA, 2_000_000_000, "ulimit -d leaves 2,000,000,000 bytes"),
        ("promote x", resource.RLIMIT_DATA, 2_000_000_000, "ulimit -d leaves 2,000,000,000 bytes"),
        ("predict x y", resource.RLIMIT_AS, 800_000_000, "ulimit -v leaves 800,000,000 bytes"),
        ("export x", resource.RLIMIT_DATA, 200_000_000, "ulimit -d leaves 200,000,000 bytes"),
    ],
)
def test_a_limit_of_memory_is_told_before_libraries_abort_or_hang(
    tmp_path: Path, command: str, limit: int, size: int, told: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "afi_search", *command.split()],
        preexec_fn=limited(limit, size),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert told in ended.stderr
    assert not list(tmp_path.iterdir())


@linux
def test_a_command_that_only_reads_needs_little(tmp_path: Path) -> None:
    study = shutil.copytree("studies/reference/resnet20-digits", tmp_path / "study")
    command = [sys.executable, "-m", "afi_search", "front", str(study)]
    limit = limited(resource.RLIMIT_AS, 2_000_000_000)
    subprocess.run(command, preexec_fn=limit, check=True, capture_output=True)


@linux
@pytest.mark.parametrize(
    ("limit", "size", "told"),
    [
        (resource.RLIMIT_AS, 9_000_000_000, "9,000,000,000 bytes of addresses"),
        (resource.RLIMIT_FSIZE, 1_000_000, "ulimit -f leaves 1,000,000 bytes a file"),
    ],
)
def test_ray_is_not_started_where_its_shared_memory_finds_no_room(
    limit: int, size: int, told: str
) -> None:
    code = "from afi_search.engine.ray_session import RaySession; RaySession().wait()"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "2000000000"},
        preexec_fn=limited(limit, size),
        capture_output=True,
        text=True,
    )
    last = ended.stderr.splitlines()[-1]
    assert told in last
    shares = "with the 2,000,000,000 that Ray shares, which RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY"
    assert shares in last


def in_another_process(act: Callable[[], str]) -> str:
    """Return what a function says in a process of its own."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, act().encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read()


@linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_threads_that_the_user_runs_already_count() -> None:
    def said() -> str:
        limited(resource.RLIMIT_NPROC, 500)()
        as_root = room.too_little()
        os.setuid(SOMEBODY)
        return f"{as_root}|{room.too_little()}"

    assert in_another_process(said).startswith("|there is no room for Ray and a trial: ulimit -u")


@pytest.mark.parametrize(("most", "fits"), [("max", True), ("5000", True), ("650", False)])
def test_threads_of_a_container_are_limited_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, fits: bool
) -> None:
    (tmp_path / "pids.max").write_text(f"{most}\n")
    (tmp_path / "pids.current").write_text("100\n")
    monkeypatch.setattr(room, "_OF_A_CONTAINER", [tmp_path / "nowhere", tmp_path / "pids.max"])
    told = "there is no room for Ray and a trial: the container's pids.max leaves 550 threads"
    assert room.too_little().startswith(told) is not fits
