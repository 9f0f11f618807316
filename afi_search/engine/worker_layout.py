"""Where a promotion runs: workers over the nodes of a Ray session, which need not be alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afi_search.engine.tune import Node
from afi_search.errors import UserError


class NoRoom(UserError):
    """There is no room for the workers that are asked for."""


@dataclass(frozen=True)
class Place:
    """Where a promotion runs.

    Attributes:
        workers: processes, one a GPU where there are any.
        cores: CPU cores of each.
        on_gpu: whether each has a GPU.
    """

    workers: int
    cores: int
    on_gpu: bool

    @property
    def processes(self) -> int:
        """Processes that load for each worker; the CPU that trains loads by itself."""
        return self.cores if self.on_gpu else max(0, min(1, self.cores - 1))

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for each worker."""
        return {"CPU": self.cores, **({"GPU": 1} if self.on_gpu else {})}


def plan_place(nodes: Sequence[Node], workers: int | None) -> Place:
    """Share out the GPUs, or where there is none the cores, of all nodes.

    All workers get the same number of cores: the most with which there is room for all of them.
    Where there are GPUs, only nodes with GPUs are used.

    Args:
        nodes: of the Ray session.
        workers: as asked; all GPUs, or one CPU process, where nobody asks.

    Raises:
        NoRoom: there are fewer GPUs or cores than workers.
    """
    on_gpu = any(node.gpus for node in nodes)
    hosts = [node for node in nodes if node.gpus] if on_gpu else nodes
    most = _room(hosts, 1, on_gpu)
    workers = workers or (most if on_gpu else 1)
    if not 1 <= workers <= most:
        raise NoRoom(
            f"--workers {workers}: there is room for {most} here, one a "
            f"{'GPU, each with a CPU core' if on_gpu else 'CPU core'}"
        )
    largest = max(node.cpus for node in hosts)
    cores = max(c for c in range(1, largest + 1) if _room(hosts, c, on_gpu) >= workers)
    return Place(workers, cores, on_gpu)


def _room(hosts: Sequence[Node], cores: int, on_gpu: bool) -> int:
    """Return how many workers of so many cores fit on the hosts."""
    return sum(min(h.cpus // cores, h.gpus) if on_gpu else h.cpus // cores for h in hosts)
