"""What a study's trials say of the objective that has to be trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import moocore
import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from afi_search.search.samplers.choice_grid import Codes, Floats

_CURVES = 4
"""Full trainings from which stopped trials are extrapolated, and the model begins."""
_COMPLETE, _PRUNED = TrialState.COMPLETE, TrialState.PRUNED
_STOPPED_OR_RUNNING = (_PRUNED, TrialState.RUNNING, TrialState.WAITING)


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
    def of(
        cls, trials: Sequence[FrozenTrial], codes: Codes, cost: Floats, learned: int, up: float
    ) -> Evidence | None:
        """Weigh what n trials have shown; None where too few are complete.

        A trial that was stopped, or runs, counts with its last value, plus what full trainings
        gained after that epoch on average, and with the variance of that gain.

        Args:
            codes, cost: n x groups, their points, -1 outside the grid; n x costs.
            learned: the objective's place among a trial's values.
            up: 1 where it is maximised, otherwise -1.
        """
        value, variance = np.full(len(trials), np.nan), np.zeros(len(trials))
        runs = np.zeros(len(trials), dtype=bool)
        curves, stopped = [], []
        for place in np.flatnonzero(codes[:, 0] >= 0).tolist():
            trial = trials[place]
            state = trial.state
            if state is _COMPLETE:
                value[place] = trial.values[learned]
                curves.append((trial.values[learned], trial.intermediate_values))
            elif state in _STOPPED_OR_RUNNING:
                runs[place] = state is not _PRUNED
                if curve := trial.intermediate_values:
                    stopped.append((place, curve))
        if len(curves) < _CURVES:
            return None
        gain_after = cache(partial(_gain, curves))
        for place, curve in stopped:
            epoch = max(curve)
            if gain := gain_after(epoch):
                value[place], variance[place] = curve[epoch] + gain[0], gain[1]
        known = np.isfinite(value)
        pending = runs & ~known
        shown = up * value[known]
        low, high = np.quantile(shown, [0.25, 0.75])
        return cls(
            codes[known],
            np.maximum(shown, low - 1.5 * (high - low)),  # failures lie far below the others
            variance[known],
            cost[known],
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
        columns = ("codes", "value", "variance", "cost")
        return replace(self, **{name: getattr(self, name)[kept] for name in columns})


def _gain(
    curves: Sequence[tuple[float, Mapping[int, float]]], epoch: int
) -> tuple[float, float] | None:
    """Return mean and variance of what full trainings gained after an epoch."""
    gains = [value - curve[epoch] for value, curve in curves if epoch in curve]
    if len(gains) < _CURVES:
        return None
    return float(np.mean(gains)), float(np.var(gains, ddof=1) * (1 + 1 / len(gains))) + 1e-12
