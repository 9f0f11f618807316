"""The main job in a process of its own, to be watched, stopped and killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

SPACE = """
backbone: resnet20
stages:
  all: {width: [off, base, B], ratio: [4], scorer: [block, stage]}
data: {name: digits, train_subset: 64, validation_subset: 40}
recipe: {epochs: 4, batch_size: 32, lr: 0.05, precision: fp32}
search:
  trials: 5
  concurrency: 1
  pruner: {name: mo-asha, grace_period: 1, reduction_factor: 2, min_trials: 3}
  first: [resnet20]
"""


class Driver:
    """A driver process of its own, with its output in a file.

    Args:
        folder: to run in, and to write the output to.
        arguments: of `python -m afi_search.run`.
        prefix: a command that runs the driver's.
    """

    def __init__(self, folder: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        self.log = folder / f"{time.monotonic_ns()}.log"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "afi_search.run", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"},
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, pattern: str, timeout: float = 200) -> None:
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.output):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def end(self, timeout: float = 200) -> int:
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()

    @property
    def ray_folder(self) -> Path:
        """The folder of the Ray that it has started."""
        (raylet,) = self.descendants("raylet/raylet")
        sockets = re.search(r"--store_socket_name=(\S+)/ray/session", " ".join(raylet.cmdline()))
        assert sockets is not None
        return Path(sockets[1])

    def descendants(self, *names: str) -> list[psutil.Process]:
        """Return the processes below the driver whose command line has one of the names in it."""
        return matching(lambda: psutil.Process(self.process.pid).children(recursive=True), names)


def matching(
    processes: Callable[[], list[psutil.Process]], names: tuple[str, ...]
) -> list[psutil.Process]:
    found = []
    for process in processes():
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if any(name in command for name in names):
            found.append(process)
    return found
