"""A PostgreSQL server of our own on loopback, from the programs that are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


def _find_programs() -> Path | None:
    """Return the folder of initdb and postgres, or None where they are not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = debian[-1] if debian else shutil.which("initdb")
    return Path(found).parent if found else None


@dataclass
class Server:
    """A server that runs.

    Attributes:
        url: of its empty database.
    """

    url: str
    _call: Callable[..., None]
    _options: tuple[str, ...]

    def start(self) -> None:
        self._call("pg_ctl", "start", "-w", *self._options)

    def stop(self, mode: str = "fast") -> None:
        self._call("pg_ctl", "stop", "-w", "-m", mode)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()


@contextmanager
def server() -> Iterator[Server]:
    """Run a server with an empty database; the test is skipped where that cannot be.

    Not in pytest's folder, which another pytest that starts closes to the server's user.
    """
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    programs = _find_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL's programs: apt-get install postgresql")
    with tempfile.TemporaryDirectory() as folder:
        yield from _server(programs, Path(folder))


def _server(programs: Path, folder: Path) -> Iterator[Server]:
    # The server refuses to run as root; Debian's package has made a user for it.
    user = "postgres" if os.getuid() == 0 else None
    data = folder / "data"
    data.mkdir(parents=True)
    if user is not None:
        shutil.chown(data, user)
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(data), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, user=user, cwd=data)
        assert done.returncode == 0, done.stdout + done.stderr

    call("initdb", "--auth=trust", "--username=afi", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {data}"
    url = f"postgresql://afi@127.0.0.1:{port}/postgres"
    running = Server(url, call, ("-l", str(data / "log"), "-o", options))
    running.start()
    try:
        yield running
    finally:
        running.stop()
