"""What a process sets before it trains: its seed, and that it keeps the memory that it frees."""

from __future__ import annotations

import ctypes
import random

import numpy as np
import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's <malloc.h>
_NEVER = 2**31 - 1


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, on every device.

    Called before a model is built, it fixes the initial weights; a `Trainer` given the same seed
    then draws the same batches. On the CPU with the same number of threads the trained weights
    are the same bit for bit.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next step.

    Left alone, glibc's malloc hands features, which are megabytes, back to the kernel with every
    step, and the kernel clears each of their pages again when the next step touches it. The process
    holds on to what it once needed, and to no more. Where the C library is another one, nothing is
    changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _NEVER)
