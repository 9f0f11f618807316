"""The device that computes: which it is, what is wrong with it, and how this process uses it."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from afi_search.errors import UserError

if TYPE_CHECKING:
    import torch

_FAULTS = re.compile(
    r"CUDA (driver )?error|Triton Error \[CUDA\]|CU(BLAS|DNN)_STATUS_(EXECUTION|INTERNAL|MAPPING)"
)
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's <malloc.h>
_NEVER = 2**31 - 1


class UnusableGpu(UserError):
    """There is a GPU, and PyTorch cannot compute on it."""


def compute_device(*, booked: bool = False) -> torch.device:
    """Return the GPU where PyTorch sees one, and otherwise the CPU.

    Where a GPU is `booked` for this process and PyTorch sees none, an UnusableGpu says why.
    """
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if booked:
        raise UnusableGpu(f"a GPU of {platform.node()} is booked and cannot be used: {_why_none()}")
    return torch.device("cpu")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads of the CPU inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, on every device.

    Called before a model is built, it fixes the initial weights; a `Trainer` given the same seed
    then draws the same batches. On the CPU with the same number of threads the trained weights
    are the same bit for bit.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def keep_freed_memory() -> None:
    """Make glibc's malloc keep freed memory for the next step instead of returning it.

    By default, features (megabytes each) go back to the kernel after every step, and the kernel
    zeroes their pages again when the next step touches them. The process keeps its peak, not more.
    With another C library nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _NEVER)


def require_usable_gpu() -> None:
    """Make sure that PyTorch sees this machine's GPU, if it is not hidden; else an UnusableGpu."""
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not hidden and any(_DEVICES.glob("nvidia[0-9]*")) and not torch.cuda.is_available():
        raise UnusableGpu(
            f"this machine has a GPU, and PyTorch cannot use it: {_why_none()}; mend that, or set "
            f"CUDA_VISIBLE_DEVICES= to do without it"
        )


_DEVICES = Path("/dev")


def _why_none() -> str:
    import torch

    try:
        torch.cuda.init()
    except Exception as error:
        return str(error).split("\n")[0]
    return "no reason is given"


def is_fault(error: Exception) -> bool:
    """Return whether an error is one of the GPU, after which its process computes nothing more.

    That a network needs more memory than there is, or than its process may take, is none.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, torch.AcceleratorError) or bool(_FAULTS.search(str(error)))


def describe_device(kind: str | None = None) -> str:
    """Return the name and number of the GPUs or else the CPU's here; `kind`: `cuda` or `cpu`."""
    import torch

    if torch.cuda.is_available() if kind is None else kind == "cuda":
        named = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        rounds = torch.backends.cudnn.allow_tf32 and torch.cuda.get_device_capability(0) >= (8, 0)
        return f"{named}, TF32 in fp32 convolutions" if rounds else named
    return f"{os.cpu_count()} cores, {_cpu_name()}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
