"""The one measure of how good a front is: how much of a box of accuracy and cost it dominates."""

from __future__ import annotations

import moocore
import numpy as np

ACCURACY_UP_MACS_DOWN = (True, False)


def dominated_area(points: np.ndarray, reference: tuple[float, float]) -> float:
    """Return the area that points dominate, in accuracy (0 to 1) x MACs; 0 where there are none.

    Args:
        points: N x 2, accuracy and MACs.
        reference: (accuracy, MACs) of a point worse than any of interest. Areas can be compared
            only when they have the same reference.
    """
    if not len(points):
        return 0.0
    # moocore reads the memory row by row
    rows = np.ascontiguousarray(points, dtype=float)
    return float(moocore.hypervolume(rows, ref=reference, maximise=ACCURACY_UP_MACS_DOWN))


def dominated_share(points: np.ndarray, reference: tuple[float, float]) -> float:
    """Return the dominated area as a share of what a perfect accuracy at no cost would give."""
    return dominated_area(points, reference) / ((1 - reference[0]) * reference[1])
