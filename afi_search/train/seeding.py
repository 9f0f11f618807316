"""One seed for building and training."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, on every device.

    Called before a model is built, it fixes the initial weights; a `Trainer` given the same seed
    then draws the same batches. On the CPU with the same number of threads the trained weights
    are the same bit for bit.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
