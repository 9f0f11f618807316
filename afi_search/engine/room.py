"""What the limits of a shell or a container leave to a run.

Ray's parts and the libraries below abort, or wait for ever, where it is too little.
"""

from __future__ import annotations

import importlib
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil

_ADDRESSES, _DATA, _THREADS = 8_000_000_000, 3_000_000_000, 600
"""What `afi-search run digits` takes on two cores with PyTorch for CUDA, beside what is shared, and
a little more: it aborts at 6 GB of addresses, hangs at 2 GB of data and aborts at 400 threads."""

_OF_A_CONTAINER = [Path("/sys/fs/cgroup/pids.max"), Path("/sys/fs/cgroup/pids/pids.max")]
_SECONDS_TO_LOAD = 90

_SHARED = "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"


def too_little(shared: int = 0) -> str:
    """Say which limits leave too little for Ray and a trial, and what to do; "" where none does.

    Args:
        shared: bytes of the memory that Ray's processes share; each of them maps it whole.
    """
    if sys.platform != "linux":  # others have the limits and do not keep them
        return ""
    sharing = f", with the {shared:,} that Ray shares, which {_SHARED} lowers" if shared else ""
    addresses, data = _soft(resource.RLIMIT_AS), _soft(resource.RLIMIT_DATA)
    limits = (
        ("ulimit -v", "bytes of addresses", addresses, _ADDRESSES + shared, sharing),
        ("ulimit -d", "bytes of data", data, _DATA, ""),
        ("ulimit -f", "bytes a file", _soft(resource.RLIMIT_FSIZE), shared, sharing),
        ("ulimit -u", "threads", _threads_of_user(), _THREADS, ""),
        ("the container's pids.max", "threads", _threads_of_container(), _THREADS, ""),
    )
    short = [
        f"{name} leaves {left:,} {unit}, and {needed:,} are needed{remark}"
        for name, unit, left, needed, remark in limits
        if left < needed
    ]
    return f"there is no room for Ray and a trial: {'; '.join(short)}" if short else ""


def cannot_load() -> str:
    """Load the libraries; say where the limits of memory do not let that end, or "".

    Another process tries it first. OpenBLAS takes its memory before PyTorch, as it would ask for
    what it does not get for ever.
    """
    if not _limited():
        return ""
    try:
        loading = [sys.executable, "-Pc", "import scipy.linalg, torch, torchvision"]
        subprocess.run(loading, check=True, capture_output=True, timeout=_SECONDS_TO_LOAD)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return f"there is not enough memory for PyTorch: {'; '.join(_limited())}"
    importlib.import_module("scipy.linalg")
    return ""


def _limited() -> list[str]:
    limits = {"ulimit -v": resource.RLIMIT_AS, "ulimit -d": resource.RLIMIT_DATA}
    lefts = {name: _soft(limit) for name, limit in limits.items()}
    return [f"{name} leaves {left:,} bytes" for name, left in lefts.items() if left < math.inf]


def _soft(limit: int) -> float:
    soft, _ = resource.getrlimit(limit)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def _threads_of_user() -> float:
    """Return how many threads this user may still start; root may start any number."""
    soft, user = _soft(resource.RLIMIT_NPROC), os.getuid()
    if user == 0 or soft == math.inf:
        return math.inf
    running = [each.info for each in psutil.process_iter(["uids", "num_threads"])]
    return soft - sum(of["num_threads"] for of in running if of["uids"] and of["uids"].real == user)


def _threads_of_container() -> float:
    for path in _OF_A_CONTAINER:
        if path.exists() and (most := path.read_text().strip()) != "max":
            return int(most) - int(path.with_name("pids.current").read_text())
    return math.inf
