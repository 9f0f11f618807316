"""A Ray cluster of two machines on one: two `ray start`, with addresses of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = Path(sys.executable).with_name("ray")
SECOND_ADDRESS = "127.0.0.2"
_SECONDS_TO_START = 120


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        address: for `--address`.
        environment: that a driver needs to be let in.
        unshared: a folder whose files the second machine does not see, where the operating system
            allows that; None otherwise.
        second: the process that holds all of the second machine's.
    """

    address: str
    environment: dict[str, str]
    unshared: Path | None
    second: subprocess.Popen[bytes]

    def trial_workers(self) -> list[psutil.Process]:
        """Return the processes of the second machine that train."""
        return [
            process
            for process in psutil.Process(self.second.pid).children(recursive=True)
            if "ResourceTrainable" in " ".join(process.cmdline())
        ]

    def lose_second(self) -> None:
        """Kill everything on the second machine at once."""
        root = psutil.Process(self.second.pid)
        for process in [root, *root.children(recursive=True)]:
            process.kill()
        self.second.wait()


@contextmanager
def two_machines() -> Iterator[Cluster]:
    """Run a cluster of two machines with one CPU core each, protected by a token."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    unshared = folder / "unshared"
    unshared.mkdir()
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    port = _free_port()
    alone = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {unshared} && exec "$0" "$@"']
    can_hide = subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    head = _start(
        [
            *("--head", f"--port={port}", f"--ray-client-server-port={_free_port()}"),
            *("--include-dashboard=false", f"--temp-dir={folder / 'head'}"),
        ],
        environment,
        folder / "head.log",
    )
    try:
        second = _start(
            [
                *(f"--address=127.0.0.1:{port}", f"--node-ip-address={SECOND_ADDRESS}"),
                f"--temp-dir={folder / 'second'}",
            ],
            environment,
            folder / "second.log",
            before=alone if can_hide else [],
        )
        try:
            yield Cluster(f"127.0.0.1:{port}", environment, unshared if can_hide else None, second)
        finally:
            _end(second)
    finally:
        _end(head)
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    arguments: list[str], environment: dict[str, str], log: Path, before: list[str] | None = None
) -> subprocess.Popen[bytes]:
    settings = ["--block", "--num-cpus=1", "--num-gpus=0", "--object-store-memory=200000000"]
    command = [*(before or []), str(RAY), "start", *arguments, *settings, "--disable-usage-stats"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment
        )
    deadline = time.monotonic() + _SECONDS_TO_START
    while "Ray runtime started" not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.1)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
    for child in children:
        if child.is_running():
            child.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
