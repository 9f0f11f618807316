"""Asynchronous successive halving for accuracy and costs at once.

Source: ASHA, Li et al. 2020 (arXiv:1810.05934); the non-dominated rank in place of one metric as
in MO-ASHA, Schmucker et al. 2021 (arXiv:2106.12639); ties by hypervolume contribution as in
SMS-EMOA, Beume et al. 2007.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import moocore
import numpy as np
from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from afi_search.formatting import plural
from afi_search.space.objective import goes_up

_ROUNDING = 1e-12  # contributions, of a box of side 1.1, that differ by less are equal


@dataclass(frozen=True)
class Verdict:
    """Whether a trial is stopped at a rung, and the reason as text."""

    stop: bool
    why: str


class MultiObjectiveAsha(BasePruner):
    """Stop a trial that ranks below the best 1 / `reduction_factor` of its peers at a rung.

    The rungs are `grace_period * reduction_factor ** k` epochs, k = 0, 1, 2, ... A trial is
    compared with every trial that has reached the rung, by its costs and the accuracies at exactly
    that epoch. What is not dominated there is never stopped. What is remembered outside the study
    are rows of trials that have ended, which never change.

    Args:
        costs: names of the costs, as in `afi_search.cost.Cost`; at least one.
        grace_period: epochs every trial gets; the first rung.
        reduction_factor: each rung keeps one trial in that many.
        min_trials: trials that must have reached a rung before any is stopped there.

    Raises:
        ValueError: an argument is below its least value.

    >>> import optuna
    >>> study = optuna.create_study(directions=["maximize", "minimize"])
    >>> trial = optuna.trial.create_trial(values=[0.5, 9e6], intermediate_values={1: 0.5})
    >>> MultiObjectiveAsha(["macs"], grace_period=2).prune(study, trial)  # 1 is no rung
    False
    """

    def __init__(
        self,
        costs: Sequence[str] = ("macs",),
        grace_period: int = 3,
        reduction_factor: int = 3,
        min_trials: int = 6,
    ) -> None:
        for name, value, least in (
            ("grace_period", grace_period, 1),
            ("reduction_factor", reduction_factor, 2),
            ("min_trials", min_trials, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value} and must be at least {least}")
        if not costs:
            raise ValueError("costs is empty and must name one at least")
        self._costs = tuple(costs)
        self._signs = np.array([1, *(-1 if goes_up(name) else 1 for name in costs)])
        self._grace_period = grace_period
        self._reduction_factor = reduction_factor
        self._min_trials = min_trials
        self._ended: dict[int, tuple[int, FrozenTrial | None, np.ndarray]] = {}
        """By epoch: how many trials from the first on have ended, the last of them, their rows."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial at its last epoch; False between rungs."""
        verdict = self.judge(study, trial)
        return verdict is not None and verdict.stop

    def judge(self, study: Study, trial: FrozenTrial) -> Verdict | None:
        """Compare the trial with its peers at its last epoch; None between rungs."""
        epoch = trial.last_step
        if epoch is None or not is_rung(epoch, self._grace_period, self._reduction_factor):
            return None
        peers = self._peers(study, trial, epoch)
        if len(peers) < self._min_trials:
            reached = plural(len(peers), "trial")
            return Verdict(False, f"{reached} had got to epoch {epoch}, too few to compare")
        rank, ahead = standing(peers, 0)
        stop = not goes_on(rank, ahead, len(peers), self._reduction_factor)
        fate = "stopped" if stop else "kept"
        return Verdict(
            stop,
            f"{fate}: behind {ahead} of {len(peers)} trials by accuracy and "
            f"{', '.join(self._costs)}, where the first {len(peers) // self._reduction_factor} and "
            f"whatever is not dominated continue",
        )

    def _peers(self, study: Study, trial: FrozenTrial, epoch: int) -> np.ndarray:
        """Return n x (1 + losses): the accuracy after that epoch, and costs; the trial's first."""
        trials = study.get_trials(deepcopy=False)
        count, last, ended = self._ended.get(epoch, (0, None, self._rows([], epoch)))
        if count and (len(trials) < count or trials[count - 1] is not last):  # of another study
            count, ended = 0, self._rows([], epoch)
        new = list(takewhile(lambda one: one.state.is_finished(), trials[count:]))
        count, ended = count + len(new), np.vstack([ended, self._rows(new, epoch)])
        self._ended[epoch] = count, trials[count - 1], ended
        others = [one for one in trials[count:] if one.number != trial.number]
        return np.vstack([self._rows([trial, *others], epoch), ended])

    def _rows(self, trials: Iterable[FrozenTrial], epoch: int) -> np.ndarray:
        rows = [
            (one.intermediate_values[epoch], *(one.user_attrs[name] for name in self._costs))
            for one in trials
            if epoch in one.intermediate_values
        ]
        return self._signs * np.array(rows, dtype=float).reshape(-1, len(self._signs))


def is_rung(epoch: int, grace_period: int, reduction_factor: int) -> bool:
    """Whether trials are compared after that many epochs."""
    rung = grace_period
    while rung < epoch:
        rung *= reduction_factor
    return rung == epoch


def goes_on(rank: int, ahead: int, peers: int, reduction_factor: int) -> bool:
    """Whether a trial of that rank (from 0), with so many of its peers ahead, passes a rung."""
    return rank == 0 or ahead < peers // reduction_factor


def standing(peers: np.ndarray, row: int) -> tuple[int, int]:
    """Return the non-dominated rank of a row, and how many are ahead by rank and contribution.

    Rows are accuracy (more is better) and costs (less is). The contribution is to the hypervolume
    of the distinct peers of the same rank, so that equal rows get equal answers.
    """
    losses = np.column_stack([-peers[:, 0], peers[:, 1:]])
    rank = moocore.pareto_rank(losses)
    low, high = losses.min(axis=0), losses.max(axis=0)
    unit = (losses - low) / np.where(high > low, high - low, 1.0)
    distinct, position = np.unique(unit[rank == rank[row]], axis=0, return_inverse=True)
    contribution = moocore.hv_contributions(distinct, ref=[1.1] * losses.shape[1])[position.ravel()]
    own = contribution[np.flatnonzero(rank == rank[row]).tolist().index(row)]
    return int(rank[row]), int((rank < rank[row]).sum() + (contribution > own + _ROUNDING).sum())
