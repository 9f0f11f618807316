"""Process-wide settings for training: random seeds and the allocator."""

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
