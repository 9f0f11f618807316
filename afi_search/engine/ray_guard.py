"""A process that ends what is left of a Ray when the process that started it stops or is killed.

python ray_guard.py FOLDER waits for the end of its input, which its parent keeps open; where that
was empty, it deletes Ray's folder, too. Ray's own agents would live for two more minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

LOCK_FILE = ".lock"
"""Of a folder that the next Ray deletes where its guard was killed, too, or is to be kept a day."""
_DAY = 24 * 3600
_PART = re.compile(r"/ray/(core|dashboard|_private)/")


class RayGuard:
    """The guard of the Ray that has a folder of its own, as its parent sees it."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )

    def finish(self, *, keep: bool = False) -> None:
        """End what is left, and wait for that; `keep`: the folder stays for a day, for its logs."""
        self._process.communicate(b"keep" if keep else None)


def processes_of(folder: Path) -> Iterator[psutil.Process]:
    """Yield the processes of the Ray that has that folder: they name it, or have logs open in it.

    Its workers and agents have no command line of their own, and other parents once it is dead.
    """
    inside = f"{folder}/"
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if (inside in command and _PART.search(command)) or (
                command.startswith("ray")
                and any(file.path.startswith(inside) for file in process.open_files())
            ):
                yield process


def end_processes_of(folder: Path) -> None:
    """Kill all that is left of the Ray that has that folder."""
    for process in processes_of(folder):
        with suppress(psutil.Error):
            process.kill()


def main(folder: Path) -> None:
    """Wait, and clean up."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # which a whole job gets
        signal.signal(number, signal.SIG_IGN)
    keep = sys.stdin.read()
    end_processes_of(folder)
    if keep:
        os.utime(folder / LOCK_FILE, 2 * (time.time() + _DAY,))
    else:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
