"""The Pareto front: the trials that no other trial beats in accuracy and costs at once.

`front` reads it off a table of records, `front_trials` off trials. Both are over the costs that the
study optimises, or over MACs where it optimises the accuracy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import moocore
import numpy as np
from optuna.trial import FrozenTrial, TrialState
from pandas import DataFrame

from afi_search.space.objective import losses
from afi_search.study.ledger import OBJECTIVES, curve

SAME_COST = 1e-3
"""Costs that differ by a smaller share of the lower one are one cost."""


def front_costs(objectives: Sequence[str]) -> tuple[str, ...]:
    """Return the costs that the front of a study with these objectives is about.

    >>> front_costs(["accuracy", "params"]), front_costs(["accuracy"])
    (('params',), ('macs',))
    """
    return tuple(name for name in objectives if name != "accuracy") or ("macs",)


def costs_of(records: DataFrame) -> tuple[str, ...]:
    """Return the costs that a table's front is about."""
    return front_costs(records.attrs.get(OBJECTIVES, ()))


def front(records: DataFrame) -> DataFrame:
    """Return the non-dominated trials in accuracy (up) and costs (down), cheapest first.

    A user's objective that goes up is a cost with its sign turned.

    Only trials that reached full fidelity take part: an accuracy after fewer epochs is another
    measure. A trial without a finite accuracy or cost takes no part either.

    Costs that differ by less than SAME_COST are one cost, at which the most accurate trial stands.
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

    >>> import pandas as pd
    >>> names = ["resnet20(off)", "resnet20(B-r16)", "resnet20(base-r4)"]
    >>> accuracies = {"architecture": names, "full": True, "accuracy": [0.60, 0.62, 0.59]}
    >>> list(front(pd.DataFrame({**accuracies, "macs": [41, 60, 42]}))["architecture"])
    ['resnet20(off)', 'resnet20(B-r16)']
    """
    candidates = comparable(records)
    if candidates.empty:
        return candidates
    order = [name for name in (*costs_of(records), "accuracy", "number") if name in candidates]
    ordered = candidates.sort_values(order, kind="stable")
    best: DataFrame = ordered.loc[_non_dominated(points(ordered))]
    rows: DataFrame = best.loc[_told_apart(points(best))]
    return rows.drop_duplicates("architecture", keep="first")


def hypervolume(records: DataFrame, reference: tuple[float, ...]) -> float:
    """Return the area (with several costs, the volume) that the front dominates up to a point.

    Args:
        records: as for `front`.
        reference: (accuracy, losses) of a point that is worse than any of interest. A trial counts
            by as much as it is above that accuracy and below that loss. Areas can be compared only
            when they have the same reference.

    Returns:
        The area, in accuracy (0 to 1) x costs; 0 where no trial is better than the reference.

    Raises:
        ValueError: a column is missing.

    >>> trial = {"architecture": "resnet32", "accuracy": 0.75, "macs": 69e6, "full": True}
    >>> hypervolume(DataFrame([trial]), reference=(0.25, 138e6))
    34500000.0
    """
    return _dominated(points(comparable(records)), reference)


def comparable(records: DataFrame) -> DataFrame:
    """Return the trials that reached full fidelity and have a finite accuracy and cost."""
    needed = ("full", "accuracy", *costs_of(records), "architecture")
    missing = [name for name in needed if name not in records]
    if missing:
        raise ValueError(f"records have no column {', '.join(missing)}")
    full = records["full"].fillna(False).to_numpy(dtype=bool)
    finite = np.isfinite(points(records)).all(axis=1)
    rows: DataFrame = records.loc[full & finite]
    return rows


def points(records: DataFrame) -> np.ndarray:
    """Return n x (1 + costs): the accuracy and the losses in the costs that the front is about."""
    columns = losses({name: records[name] for name in costs_of(records)}, costs_of(records))
    return np.column_stack([records["accuracy"], *columns]).astype(float)


def front_trials(trials: Iterable[FrozenTrial], objectives: Sequence[str]) -> list[FrozenTrial]:
    """Return the complete trials of the front, each architecture once, with its best accuracy.

    The front of a front and a further trial is the front of them all.
    """
    best: dict[str, FrozenTrial] = {}
    for trial in trials:
        known = best.get(architecture := trial.user_attrs["architecture"])
        if trial.state == TrialState.COMPLETE and (
            known is None or curve(trial)[-1] > curve(known)[-1]
        ):
            best[architecture] = trial
    kept = list(best.values())
    stays = _non_dominated(trial_points(kept, objectives)) if kept else ()
    return [trial for trial, on_front in zip(kept, stays, strict=True) if on_front]


def trial_points(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> np.ndarray:
    """Return accuracy and losses of complete trials, n x (1 + costs)."""
    costs = front_costs(objectives)
    rows = [(curve(trial)[-1], *losses(trial.user_attrs, costs)) for trial in trials]
    return np.array(rows, dtype=float).reshape(-1, 1 + len(costs))


def front_size(points: np.ndarray) -> int:
    """Return how many points of a front `front` lists, where almost equal costs are one."""
    return int(_told_apart(points).sum())


def dominated_share(points: np.ndarray, reference: Sequence[float]) -> float:
    """Return what points dominate as a share of what perfect accuracy at no cost would.

    Points are n x (1 + costs), accuracy (0 to 1) and losses, there may be none; the reference is as
    for `hypervolume`. NaN where an objective goes up, for there is no best of it.
    """
    best = (1 - reference[0]) * math.prod(reference[1:])
    return _dominated(points, reference) / best if best else math.nan


def dominated_shares(points: np.ndarray, reference: Sequence[float]) -> np.ndarray:
    """Return the `dominated_share` of the first point, of the first two, and so on; n numbers."""
    front, shares = points[:0], [0.0] * len(points)
    for row in range(len(points)):
        stacked = np.vstack([front, points[row]])
        stays = _non_dominated(stacked)
        if stays[-1]:
            front = stacked[stays]
            shares[row] = dominated_share(front, reference)
        else:
            shares[row] = shares[row - 1]
    return np.array(shares)


def _non_dominated(points: np.ndarray) -> np.ndarray:
    """Return which of the rows (accuracy, costs) no other row beats; equal rows all stay."""
    best: np.ndarray = moocore.is_nondominated(points, maximise=_up(points), keep_weakly=True)
    return best


def _told_apart(points: np.ndarray) -> np.ndarray:
    """Return which rows of a front stay if costs that differ by less than SAME_COST are one."""
    stays = np.zeros(len(points), dtype=bool)
    for row in np.argsort(-points[:, 0], kind="stable"):
        accuracy, costs = points[row, 0], points[row, 1:]
        better = points[stays & (points[:, 0] > accuracy), 1:]
        stays[row] = not (better < costs + SAME_COST * abs(costs)).all(axis=1).any()
    return stays


def _dominated(points: np.ndarray, reference: Sequence[float]) -> float:
    if not len(points):
        return 0.0
    # moocore reads the memory row by row
    rows = np.ascontiguousarray(points, dtype=float)
    return float(moocore.hypervolume(rows, ref=reference, maximise=_up(rows)))


def _up(points: np.ndarray) -> list[bool]:
    """Return which columns are the better the larger: the first, the accuracy."""
    return [True, *[False] * (points.shape[1] - 1)]
