"""What a study's trials say of the objective that has to be trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import takewhile
from operator import is_
from typing import Self

import moocore
import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from afi_search.search.samplers.choice_grid import ChoiceGrid, Codes, Floats

_CURVES = 4
"""Full trainings from which stopped trials are extrapolated, and the model begins."""
_STOPPED_OR_RUNNING = (TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)


@dataclass(frozen=True)
class Seen:
    """What n trials have shown, in their order.

    Attributes:
        codes, cost: n x groups, the points, -1 outside the grid; n x known values.
        value: n, of those trained to the end; NaN otherwise.
        epoch: n, the last epoch of those that were stopped or run; -1 where there is none.
        shown: n, the value at that epoch.
        runs: n, whether the trial is not finished.
        curve: n, value by epoch.
    """

    codes: Codes
    cost: Floats
    value: Floats
    epoch: NDArray[np.int64]
    shown: Floats
    runs: NDArray[np.bool_]
    curve: NDArray[np.object_]

    @classmethod
    def read(cls, trials: Sequence[FrozenTrial], codes: Codes, cost: Floats, learned: int) -> Self:
        """Read trials at points of a grid; `learned` is the objective's place among the values."""
        rows = []
        for trial in trials:
            curve = trial.intermediate_values
            last = max(curve, default=-1) if trial.state in _STOPPED_OR_RUNNING else -1
            value = trial.values[learned] if trial.state == TrialState.COMPLETE else np.nan
            rows.append((value, last, curve.get(last, np.nan), not trial.state.is_finished()))
        value, epoch, shown, runs = np.array(rows, dtype=float).reshape(-1, 4).T
        curves = np.array([None, *(trial.intermediate_values for trial in trials)], dtype=object)
        return cls(codes, cost, value, epoch.astype(int), shown, runs.astype(bool), curves[1:])

    def __add__(self, other: Self) -> Self:
        return type(self)(
            *(
                np.concatenate([getattr(each, f.name) for each in (self, other)])
                for f in fields(self)
            )
        )


class History:
    """Reads what a study's trials have shown, each that has ended once."""

    def __init__(self, grid: ChoiceGrid, learned: int) -> None:
        self.grid = grid
        self._learned = learned
        self._ended: list[FrozenTrial] = []
        self._seen = self._read([])

    def see(self, trials: Sequence[FrozenTrial]) -> Seen:
        """Return what the trials have shown, in their order."""
        if not all(map(is_, self._ended, trials)) or len(self._ended) > len(trials):
            self._ended, self._seen = [], self._read([])
        others = trials[len(self._ended) :]
        ended = list(takewhile(lambda trial: trial.state.is_finished(), others))
        self._ended += ended
        self._seen += self._read(ended)
        return self._seen + self._read(others[len(ended) :])

    def _read(self, trials: Sequence[FrozenTrial]) -> Seen:
        return Seen.read(trials, *self.grid.locate(trials), self._learned)


@dataclass(frozen=True)
class Evidence:
    """Trials at points of a grid: values, of which more is better, and costs, of which less is.

    Attributes:
        codes, cost: n x groups, the points; n x costs.
        value, variance: n, as trained to the end, or extrapolated with that variance.
        pending, pending_cost: m x groups and costs of what runs and has shown nothing yet.
    """

    codes: Codes
    value: Floats
    variance: Floats
    cost: Floats
    pending: Codes
    pending_cost: Floats

    @classmethod
    def of(cls, seen: Seen, cost: Floats, up: float) -> Evidence | None:
        """Weigh what n trials, with n x costs, have shown; None where too few are complete.

        A trial that was stopped, or runs, counts with its last value, plus what full trainings
        gained after that epoch on average, and with the variance of that gain. `up` is 1 where the
        objective is maximised, otherwise -1.
        """
        inside = seen.codes[:, 0] >= 0
        full = inside & np.isfinite(seen.value)
        if full.sum() < _CURVES:
            return None
        value, variance = np.where(full, seen.value, np.nan), np.zeros(len(inside))
        for epoch in np.unique(seen.epoch[inside & (seen.epoch >= 0)]).tolist():
            gain = _gain(seen.value[full].tolist(), seen.curve[full].tolist(), epoch)
            if gain is not None:
                there = inside & (seen.epoch == epoch)
                value[there] = seen.shown[there] + gain[0]
                variance[there] = gain[1]
        known = np.isfinite(value)
        pending = inside & seen.runs & ~known
        return cls(
            seen.codes[known],
            _winsorised(up * value[known]),
            variance[known],
            cost[known],
            seen.codes[pending],
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
        return replace(
            self,
            codes=self.codes[kept],
            value=self.value[kept],
            variance=self.variance[kept],
            cost=self.cost[kept],
        )


def _gain(
    values: Sequence[float], curves: Sequence[Mapping[int, float]], epoch: int
) -> tuple[float, float] | None:
    """Return mean and variance of what full trainings gained after an epoch."""
    pairs = zip(values, curves, strict=True)
    gains = [value - curve[epoch] for value, curve in pairs if epoch in curve]
    if len(gains) < _CURVES:
        return None
    return float(np.mean(gains)), float(np.var(gains, ddof=1) * (1 + 1 / len(gains))) + 1e-12


def _winsorised(values: Floats) -> Floats:
    """Return the values with failures, far below the others, brought near."""
    low, high = np.quantile(values, [0.25, 0.75])
    return np.maximum(values, low - 1.5 * (high - low))
