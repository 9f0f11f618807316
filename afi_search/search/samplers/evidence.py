"""What a study's trials say of the objective that has to be trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import moocore
import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from afi_search.search.samplers.choice_grid import Codes, Floats

_CURVES = 4
"""Full trainings from which stopped trials are extrapolated, and the model begins."""


@dataclass(frozen=True)
class Evidence:
    """Trials at points of a grid: values, of which more is better, and costs, of which less is.

    Attributes:
        codes: n x groups, the points.
        value: n, as trained to the end, or extrapolated.
        variance: n, of the extrapolation; 0 for trials that were trained to the end.
        cost: n x costs.
        pending: m x groups, points that run and have shown nothing yet.
        pending_cost: m x costs.
    """

    codes: Codes
    value: Floats
    variance: Floats
    cost: Floats
    pending: Codes
    pending_cost: Floats

    @classmethod
    def of(
        cls,
        trials: Sequence[FrozenTrial],
        codes: Codes,
        cost: Floats,
        learned: int,
        up: float,
    ) -> Evidence | None:
        """Read trials; None where too few have been trained to the end.

        A trial that was stopped, or runs, counts with its last value, plus what full trainings
        gained after that epoch on average, and with the variance of that gain.

        Args:
            trials: n.
            codes: n x groups; -1 for what lies outside the grid.
            cost: n x costs.
            learned: position of the objective among the trials' values.
            up: 1 where it is maximised, otherwise -1.
        """
        inside = np.flatnonzero(codes[:, 0] >= 0).tolist()
        full = [
            row
            for row in inside
            if trials[row].state == TrialState.COMPLETE and isfinite(trials[row].values[learned])
        ]
        if len(full) < _CURVES:
            return None
        gains: dict[int, tuple[float, float] | None] = {}
        stopped, shown, pending = [], [], []
        for row in inside:
            trial = trials[row]
            if trial.state not in (TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING):
                continue
            epoch = trial.last_step
            if epoch is not None and epoch not in gains:
                gains[epoch] = _gain([trials[each] for each in full], learned, epoch)
            if epoch is not None and (gain := gains[epoch]):
                stopped.append(row)
                shown.append((trial.intermediate_values[epoch] + gain[0], gain[1]))
            elif trial.state != TrialState.PRUNED:
                pending.append(row)
        reached = [(trials[row].values[learned], 0.0) for row in full]
        rows = np.array([*full, *stopped])
        by_number = np.argsort(rows)
        rows = rows[by_number]
        value, variance = np.array([*reached, *shown])[by_number].T
        return cls(
            codes[rows],
            _winsorised(up * value),
            variance,
            cost[rows],
            codes[pending],
            cost[pending],
        )

    @property
    def full(self) -> NDArray[np.bool_]:
        """Which were trained to the end."""
        return self.variance == 0

    def front(self) -> Codes:
        """Return the points that no other full training beats."""
        losses = np.column_stack([-self.value, self.cost])[self.full]
        return np.asarray(self.codes[self.full][moocore.pareto_rank(losses) == 0])

    def strongest(self, count: int) -> Evidence:
        """Return at most so many trials: half of them the best by non-dominated rank."""
        if len(self.value) <= count:
            return self
        rank = moocore.pareto_rank(np.column_stack([-self.value, self.cost]))
        best = np.argsort(rank, kind="stable")[: count // 2]
        newest = np.setdiff1d(np.arange(len(rank)), best)[-(count - len(best)) :]
        kept = np.concatenate([best, newest])
        return Evidence(
            self.codes[kept],
            self.value[kept],
            self.variance[kept],
            self.cost[kept],
            self.pending,
            self.pending_cost,
        )


def _gain(full: Sequence[FrozenTrial], learned: int, epoch: int) -> tuple[float, float] | None:
    """Return mean and variance of what full trainings gained after an epoch."""
    gains = [
        trial.values[learned] - trial.intermediate_values[epoch]
        for trial in full
        if epoch in trial.intermediate_values
    ]
    if len(gains) < _CURVES:
        return None
    return float(np.mean(gains)), float(np.var(gains, ddof=1) * (1 + 1 / len(gains))) + 1e-12


def _winsorised(values: Floats) -> Floats:
    """Return the values with failures, far below the others, brought near."""
    low, high = np.quantile(values, [0.25, 0.75])
    return np.maximum(values, low - 1.5 * (high - low))
