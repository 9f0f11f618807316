"""The front: the trials that no other trial beats in both accuracy and cost.

Which costs count is the study's matter (`costs_of`); MACs where a table does
not say.
"""

from __future__ import annotations

import moocore
import numpy as np
from pandas import DataFrame

from afi_search.study.hypervolume import accuracy_up, dominated

COSTS = "costs"
"""The name under which a table of records says what its study optimised besides the accuracy."""


def costs_of(records: DataFrame) -> tuple[str, ...]:
    """Return the costs that a table's front is about: its study's objectives, or else MACs."""
    return tuple(records.attrs.get(COSTS, ())) or ("macs",)


def front(records: DataFrame) -> DataFrame:
    """Return the non-dominated trials in (accuracy up, costs down), cheapest first.

    Only trials that reached full fidelity take part: an accuracy after fewer epochs is another
    measure. A trial without a finite accuracy or cost takes no part either.

    Trials that are equal in both are all kept, for neither beats the other and the choice between
    them is the reader's; only a repetition of the same architecture is left out. As one
    architecture has one cost, it stands on the front at most once, with its best accuracy.

    Args:
        records: a ledger's trials, with the columns `full`, `accuracy` (0 to 1), `architecture`
            and the costs; `number` orders equals, where it is there.

    Returns:
        Those rows, with all columns and their index labels, sorted by the costs, then by accuracy,
        then by number.

    Raises:
        ValueError: a column is missing.
    """
    candidates = comparable(records)
    if candidates.empty:
        return candidates
    order = [name for name in (*costs_of(records), "accuracy", "number") if name in candidates]
    ordered = candidates.sort_values(order, kind="stable")
    best = moocore.is_nondominated(
        points(ordered), maximise=accuracy_up(1 + len(costs_of(records))), keep_weakly=True
    )
    rows: DataFrame = ordered.loc[best]
    return rows.drop_duplicates("architecture", keep="first")


def hypervolume(records: DataFrame, reference: tuple[float, ...]) -> float:
    """Return the area (with several costs, the volume) that the front dominates up to a point.

    Args:
        records: as for `front`.
        reference: (accuracy, costs) of a point that is worse than any of interest. A trial counts
            by as much as it is above that accuracy and below that cost. Areas can be compared only
            when they have the same reference.

    Returns:
        The area, in accuracy (0 to 1) x costs; 0 where no trial is better than the reference.

    Raises:
        ValueError: a column is missing.
    """
    return dominated(points(front(records)), reference)


def comparable(records: DataFrame) -> DataFrame:
    """Return the trials that reached full fidelity and have a finite accuracy and cost.

    Raises:
        ValueError: a column is missing.
    """
    needed = ("full", "accuracy", *costs_of(records), "architecture")
    missing = [name for name in needed if name not in records]
    if missing:
        raise ValueError(f"records have no column {', '.join(missing)}")
    full = records["full"].fillna(False).to_numpy(dtype=bool)
    finite = np.isfinite(points(records)).all(axis=1)
    rows: DataFrame = records.loc[full & finite]
    return rows


def points(records: DataFrame) -> np.ndarray:
    """Return n x (1 + costs): the accuracy and the costs that the front is about."""
    # moocore reads the memory row by row
    return np.ascontiguousarray(records[["accuracy", *costs_of(records)]].to_numpy(dtype=float))
