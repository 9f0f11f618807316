"""The machines of the Ray session, and how they are shared out."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from afi_search.engine.limits import EMPTY_WORKER
from afi_search.engine.ray_session import EngineError
from afi_search.errors import last_line
from afi_search.files import open_url
from afi_search.space.schema import Search


@dataclass(frozen=True)
class Capacity:
    """How many workers run at a time, and what each of them gets.

    Attributes:
        concurrency: workers at a time; a trial is trained by one, a promotion by all of them.
        threads: CPU cores of each.
        gpus: share of a GPU of each; 0 where there is none.
        memory: bytes of the machine's memory of each; None: not limited.
    """

    concurrency: int
    threads: int
    gpus: float
    memory: int | None = None

    @property
    def resources(self) -> dict[str, float]:
        """What Ray books for a worker."""
        booked = {} if self.memory is None else {"memory": EMPTY_WORKER + self.memory}
        return {"cpu": self.threads, "gpu": self.gpus, **booked}


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster has; `memory` is in bytes."""

    cpus: int
    gpus: int
    memory: float = math.inf

    def room(self, gpus: float, memory: int | None = None, threads: int = 1) -> int:
        """Return how many workers of that share of a GPU, that memory and those cores it holds."""
        by_gpu = self.gpus * int(1 / gpus) if gpus else math.inf
        by_memory = math.inf if memory is None else self.memory // (EMPTY_WORKER + memory)
        return int(min(by_gpu, by_memory, self.cpus // threads))


def plan_trials(search: Search, nodes: Sequence[Node]) -> Capacity:
    """Share out the nodes among the trials of a study, as many at a time as there is room for.

    Where there are GPUs, only nodes with GPUs are used.

    Raises:
        EngineError: no node holds even one trial.
    """
    hosts = _hosts(nodes)
    gpus = search.gpus_per_trial if any(node.gpus for node in hosts) else 0.0
    room = sum(node.room(gpus, search.memory_per_trial) for node in hosts)
    if not room:
        raise EngineError(
            f"no machine here holds a trial: it takes a CPU core, {gpus:g} GPUs and "
            f"{EMPTY_WORKER + (search.memory_per_trial or 0):,} bytes of memory, and there are "
            f"{', '.join(map(str, nodes)) or 'no machines'}; lower search.memory_per_trial, or "
            f"give Ray more"
        )
    concurrency = min(room, search.trials)
    if search.concurrency != "auto":
        concurrency = min(concurrency, search.concurrency)
    return _with_most_threads(hosts, concurrency, gpus, search.memory_per_trial)


def plan_promotion(workers: int | None, nodes: Sequence[Node]) -> Capacity:
    """Share out the nodes among the workers that train one network together.

    Args:
        workers: processes, one a GPU where there are any; None: all GPUs, or one CPU process.
        nodes: of the Ray session; where there are GPUs, only nodes with GPUs are used.

    Raises:
        EngineError: there are fewer GPUs or cores than workers.
    """
    hosts = _hosts(nodes)
    gpus = float(any(node.gpus for node in hosts))
    room = sum(node.room(gpus) for node in hosts)
    workers = workers or (room if gpus else 1)
    if not 1 <= workers <= room:
        raise EngineError(
            f"--workers {workers}: there is room for {room} here, one a "
            f"{'GPU, each with a CPU core' if gpus else 'CPU core'}"
        )
    return _with_most_threads(hosts, workers, gpus, None)


def _hosts(nodes: Sequence[Node]) -> Sequence[Node]:
    return [node for node in nodes if node.gpus] or nodes


def _with_most_threads(
    hosts: Sequence[Node], concurrency: int, gpus: float, memory: int | None
) -> Capacity:
    """Give every worker the same number of cores: the most with which all of them have room."""
    threads = max(
        count
        for count in range(1, max(node.cpus for node in hosts) + 1)
        if sum(node.room(gpus, memory, count) for node in hosts) >= concurrency
    )
    return Capacity(concurrency, threads, gpus, memory)


def cluster_nodes() -> list[Node]:
    """Return the machines of the Ray session."""
    has = [node["Resources"] for node in _alive()]
    return [
        Node(int(of.get("CPU", 0)), int(of.get("GPU", 0)), of.get("memory", math.inf)) for of in has
    ]


def require_shared(place: str) -> None:
    """Make sure that the driver and all machines that train reach the place of the checkpoints.

    Raises:
        EngineError: the place cannot be written, or a machine does not see what is written there.
    """
    nodes = [node for node in _alive() if node["Resources"].get("CPU")]
    probe = f"{place}/.probe-{secrets.token_hex(8)}"
    try:
        filesystem, path = open_url(probe)
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(path, b"afi_search")
    except Exception as error:
        raise EngineError(f"the checkpoints' place {place} cannot be written: {error}") from None
    try:
        if len(nodes) > 1:
            _require_seen(probe, place, nodes)
    finally:
        filesystem.rm_file(path)


def _require_seen(probe: str, place: str, nodes: Sequence[dict[str, Any]]) -> None:
    asked = {
        node["NodeManagerAddress"]: _sees.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(probe)
        for node in nodes
    }
    for machine, answer in asked.items():
        try:
            sees = ray.get(answer)
        except RayError as error:
            raise EngineError(f"the machine {machine} cannot train: {last_line(error)}") from None
        if not sees:
            raise EngineError(
                f"the machine {machine} does not see the checkpoints in {place}; name a place that "
                f"all machines share, like --checkpoints s3://bucket/folder"
            )


@ray.remote(num_cpus=0)
def _sees(url: str) -> bool:
    filesystem, path = open_url(url)
    return bool(filesystem.exists(path))


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
