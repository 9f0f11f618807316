"""The one measure of how good a front is: how much of a box of accuracy and costs it dominates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import moocore
import numpy as np


def accuracy_up(columns: int) -> list[bool]:
    """Return which of so many columns are the better the larger: the first, the accuracy."""
    return [True, *[False] * (columns - 1)]


def dominated(points: np.ndarray, reference: Sequence[float]) -> float:
    """Return the area (with several costs, the volume) that points dominate; 0 without points.

    Args:
        points: N x (1 + costs), accuracy (0 to 1) and costs.
        reference: accuracy and costs of a point worse than any of interest. Areas can be compared
            only when they have the same reference.
    """
    if not len(points):
        return 0.0
    # moocore reads the memory row by row
    rows = np.ascontiguousarray(points, dtype=float)
    return float(moocore.hypervolume(rows, ref=reference, maximise=accuracy_up(rows.shape[1])))


def dominated_share(points: np.ndarray, reference: Sequence[float]) -> float:
    """Return what is dominated as a share of what a perfect accuracy at no cost would give."""
    return dominated(points, reference) / ((1 - reference[0]) * math.prod(reference[1:]))
