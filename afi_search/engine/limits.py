"""What a trial may take of its machine: its share of a GPU's memory, and of the machine's own.

Ray only books these shares; what holds a trial to them is set in its worker. A trial that wants
more fails with the reason, and neither its node nor its neighbours notice.
"""

from __future__ import annotations

import resource
from pathlib import Path

import torch

from afi_search.errors import UserError, lacks_memory

EMPTY_WORKER = 1_000_000_000
"""Bytes that Python, PyTorch and Ray take in a worker before there is a trial, about."""

CONTEXT = 1_000_000_000
"""Bytes of a GPU that a process takes beside its tensors: 878 MB on an H200 with CUDA 13.0."""

WORKER_DEATHS = 3
"""So many workers may die at one task; what loses another has failed."""

_STATUS = Path("/proc/self/status")


class NoRoom(UserError):
    """A share of a GPU is less than a process needs before it has computed anything."""


def limit_gpu(share: float) -> None:
    """Let this process take no more than that share of its GPU's memory, its context included."""
    if 0 < share < 1:
        size = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(left_to_tensors(share, size))


def left_to_tensors(share: float, size: int) -> float:
    """Return which part of a GPU of `size` bytes is left of a share, beside a process's context.

    >>> left_to_tensors(0.5, 8_000_000_000)
    0.375

    Raises:
        NoRoom: nothing is left for the worker.
    """
    left = share - CONTEXT / size
    if left <= 0:
        raise NoRoom(
            f"search.gpus_per_trial: {share:g} of a GPU of {size:,} bytes leaves no room beside "
            f"the {CONTEXT:,} that each process takes of it; let fewer trials share it"
        )
    return left


def limit_memory(size: int | None) -> None:
    """Let this process allocate no more than so many bytes from now on; None: no limit.

    Only Linux keeps the limit; it counts private memory (RLIMIT_DATA), so that the data set in
    Ray's shared memory and what CUDA reserves without using it are free.
    """
    if size is None or not _STATUS.exists():
        return
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    taken = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (taken + size, hard))


def as_limit(error: Exception, size: int | None) -> str | None:
    """Return the reason for an error that the memory limit made; None where it did not."""
    if size is None or not lacks_memory(error):
        return None
    return f"took more than search.memory_per_trial allows ({size:,} bytes)"
