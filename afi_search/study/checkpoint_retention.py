"""Which trials' checkpoints are kept, and what a study takes on disk.

Checkpoints are kept for unfinished trials, for the Pareto front, and for the two reference
networks: the plain backbone and the most accurate with AFI. A trial that has left these never
comes back, so that its checkpoints are deleted as soon as the ledger says so: a study's disk grows
with its front and not with its trials.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

from optuna.trial import FrozenTrial, TrialState

from afi_search.space import Architecture
from afi_search.study.checkpoint_location import trial_location
from afi_search.study.ledger import UNFINISHED, curve
from afi_search.study.ownership import trials_in
from afi_search.study.pareto import front_trials


class CheckpointRetention:
    """Deletes checkpoints that are no longer needed, when it starts and as trials end."""

    def __init__(self, location: str, objectives: Sequence[str], trials: list[FrozenTrial]) -> None:
        self._location = location
        self._objectives = objectives
        kept = worth_keeping(trials, objectives)
        self._kept = {trial.number: trial for trial in trials if trial.number in kept}
        drop_others(location, kept)

    def changed(self, trial: FrozenTrial) -> None:
        """Handle a trial whose state or values have changed."""
        self._kept[trial.number] = trial
        if trial.state.is_finished():
            kept = worth_keeping(self._kept.values(), self._objectives)
            for number in self._kept.keys() - kept:
                drop(self._location, number)
                del self._kept[number]


def worth_keeping(trials: Iterable[FrozenTrial], objectives: Sequence[str]) -> set[int]:
    """Return the numbers of the trials whose checkpoints may still be of use."""
    known = list(trials)
    complete = [trial for trial in known if trial.state == TrialState.COMPLETE]
    texts = {trial.number: trial.user_attrs["architecture"] for trial in complete}
    plain = {n for n, text in texts.items() if Architecture.parse(text).backbone == text}
    with_afi = [trial for trial in complete if trial.number not in plain]
    best = max(with_afi, key=lambda trial: curve(trial)[-1], default=None)
    return (
        {trial.number for trial in known if trial.state in UNFINISHED}
        | {trial.number for trial in front_trials(complete, objectives)}
        | plain
        | ({best.number} if best is not None else set())
    )


def drop_others(location: str, kept: Collection[int]) -> None:
    """Delete the checkpoints of all trials but those."""
    for number in set(trials_in(location)).difference(kept):
        drop(location, number)


def drop(location: str, number: int) -> None:
    """Delete a trial's checkpoints; what cannot be deleted now is left for the next time."""
    from afi_search.train.checkpoint import delete

    with suppress(OSError):
        delete(trial_location(location, number))


def checkpoint_size(params: int) -> int:
    """Return about how many bytes the checkpoints of a trial take."""
    from afi_search.train.checkpoint import KEPT

    return KEPT * 2 * 4 * params  # weights and momentum, in four bytes each
