"""What a trial may take of its machine: its share of a GPU's memory, and of the machine's own.

Ray only books these shares; what holds a trial to them is set in its worker. A trial that wants
more fails with the reason, and neither its node nor its neighbours notice.
"""

from __future__ import annotations

import resource
from pathlib import Path

import torch

EMPTY_WORKER = 1_000_000_000
"""Bytes that Python, PyTorch and Ray take in a worker before there is a trial, about."""

_STATUS = Path("/proc/self/status")


def limit_gpu(share: float) -> None:
    """Let this process allocate no more than that share of its GPU's memory.

    PyTorch's own context, some hundred MB a process, is not counted.
    """
    if 0 < share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def limit_memory(size: int | None) -> None:
    """Let this process allocate no more than so many bytes from now on; None: no limit.

    Only Linux keeps the limit; it counts private memory (RLIMIT_DATA), so that the data set in
    Ray's shared memory and what CUDA reserves without using it are free.
    """
    if size is None or not _STATUS.exists():
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_private_bytes() + size, hard))


def as_limit(error: Exception, size: int | None) -> str | None:
    """Return the reason for an error that the memory limit made; None where it did not."""
    refused = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    if size is None or not refused:
        return None
    return f"took more than search.memory_per_trial allows ({size:,} bytes)"


def _private_bytes() -> int:
    """Return the memory of this process that RLIMIT_DATA counts."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:"))
