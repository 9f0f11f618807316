"""ReLU and ReLU6 as one function of where they end."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def rectify_(y: Tensor, ceiling: float) -> Tensor:
    """Cut off what is below zero or above the ceiling, in place; return the same tensor."""
    return F.relu_(y) if ceiling == math.inf else F.hardtanh_(y, 0.0, ceiling)
