"""The conductor decides what is tried, resumed, stopped and finished, on the ledger alone.

It knows nothing of Ray: the Tune run asks it, and so does a simulator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from afi_search.search.pruners import Verdict, judge
from afi_search.space import Architecture
from afi_search.space.schema import SpaceFile
from afi_search.study.ledger import DEATHS, RUNG, SAID, UNFINISHED, Ledger, Proposal, curve


@dataclass(frozen=True)
class Assignment:
    """What a worker is to train, and whether it `inherits` the weights of the study's supernet."""

    number: int
    architecture: Architecture
    seed: int
    inherits: bool = False


class Proposes(Protocol):
    """Where new trials come from."""

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing left to propose."""

    def learn(self, trial: FrozenTrial) -> None:
        """Learn of a trial of the ledger that has begun, got further or ended."""

    def propose(self, number: int) -> Proposal | None:
        """Return what the ledger's trial of that number is to try; None if nothing is left."""


@dataclass(eq=False)
class Conductor:
    """Runs a study's trials, one decision at a time.

    A trial that an earlier driver left RUNNING or WAITING is assigned again before anything new
    is proposed.

    Attributes:
        file: its space file; `search.trials` is the number of trials the ledger is to hold.
        proposer: of new architectures; it learns what the ledger holds already.
        pruner: asked at every epoch.
        on_change: called with a trial whenever something about it has changed.
    """

    ledger: Ledger
    file: SpaceFile
    proposer: Proposes
    pruner: BasePruner
    on_change: Callable[[FrozenTrial], None] = lambda trial: None

    def __post_init__(self) -> None:
        trials = self.ledger.trials()
        for trial in trials:
            self.proposer.learn(trial)
        self._count = len(trials)
        self._left_over = deque(t.number for t in trials if t.state in UNFINISHED)
        self._entered: dict[int, int] = {}
        said = [t.user_attrs.get(SAID, {}) for t in trials]
        self._asked = max((each.get("asked", 0) for each in said), default=0)
        for number in self._left_over:  # a killed driver may not have come to that
            if said[number].get("asked") == self._asked:
                self.ledger.keep(said[number]["kept"])

    @property
    def running(self) -> frozenset[int]:
        """Numbers of the trials that are assigned and not finished."""
        return frozenset(self._entered)

    @property
    def has_next(self) -> bool:
        """Whether there is anything left to assign."""
        return bool(self._left_over) or (
            self._count < self.file.search.trials and not self.proposer.exhausted
        )

    def next(self) -> Assignment | None:
        """Assign a trial: one left over, or a new one; None when there is no more to try."""
        if self._left_over:
            trial = self.ledger.trial(self._left_over.popleft())
            if trial.state == TrialState.WAITING:
                self.ledger.resume(trial.number)
        else:
            proposal = self.proposer.propose(self._count) if self.has_next else None
            if proposal is None:
                return None
            for architecture, cost in proposal.infeasible.items():
                self.ledger.reject(architecture, cost)
            seed = self.file.search.seed if proposal.seed is None else proposal.seed
            trial = self.ledger.add(proposal, seed, self.file.recipe.epochs)
            self._count += 1
            self.proposer.learn(trial)
        self._entered[trial.number] = max(0, len(curve(trial)) - 1)  # that may not be judged yet
        self.on_change(self.ledger.trial(trial.number))
        return Assignment(
            trial.number,
            Architecture.parse(trial.user_attrs["architecture"]),
            trial.user_attrs["seed"],
            trial.user_attrs.get("init") == "inherited",
        )

    def report(self, number: int, accuracies: Sequence[float], seconds: float) -> bool:
        """Enter what a worker has trained so far; return whether it is to stop.

        Args:
            accuracies: of every epoch from the first, at least one, so that nothing is lost that
                an earlier driver did not live to enter.
            seconds: spent in training the trial so far.
        """
        first = min(self._entered[number] + 1, len(accuracies))
        for epoch in range(first, len(accuracies) + 1):
            trial = self.ledger.report(number, epoch, accuracies[epoch - 1])
            self.proposer.learn(trial)
            self._entered[number] = epoch
            if epoch >= trial.user_attrs["epochs"]:
                self.ledger.note(number, seconds=seconds)
                self._finish(number, TrialState.COMPLETE, self._values(trial))
                return True
            verdict = self._judge(trial)
            if verdict is not None and (verdict.stop or verdict.why):
                ending = {"seconds": seconds} if verdict.stop else {}
                self.ledger.note(number, **ending, **{f"{RUNG}{epoch}": verdict.why})
            if verdict is not None and verdict.stop:
                # as Optuna does, where there is one objective
                values = [accuracies[epoch - 1]] if len(self.file.objectives) == 1 else None
                self._finish(number, TrialState.PRUNED, values)
                return True
        self.on_change(self.ledger.trial(number))
        return False

    def fail(self, number: int, reason: str, details: str = "") -> None:
        """End a trial that cannot continue: the reason in a line, and details for developers."""
        self.ledger.note(number, reason=reason, details=details)
        self._finish(number, TrialState.FAIL)

    def lose_worker(self, number: int, cause: str) -> None:
        """Note that a trial's worker died; another resumes it from its checkpoint."""
        trial = self.ledger.trial(number)
        deaths = trial.user_attrs.get(DEATHS, [])
        self.ledger.note(number, **{DEATHS: [*deaths, f"{len(curve(trial))}: {cause}"]})
        self.on_change(self.ledger.trial(number))

    def interrupt(self) -> None:
        """Leave all running trials WAITING, for the next driver to resume."""
        for number in sorted(self._entered):
            self.ledger.suspend(number)
            self.on_change(self.ledger.trial(number))
        self._entered.clear()

    def _judge(self, trial: FrozenTrial) -> Verdict | None:
        """Ask the pruner, once an epoch: what it says and what it keeps are one line."""
        said = trial.user_attrs.get(SAID, {})
        if said.get("epoch") == trial.last_step:
            return said["verdict"] and Verdict(**said["verdict"])
        verdict, kept = judge(self.pruner, self.ledger.study, trial)
        if verdict is not None or kept:
            self._asked += 1
            given = verdict and {"stop": bool(verdict.stop), "why": verdict.why}
            said = {"epoch": trial.last_step, "verdict": given, "kept": kept, "asked": self._asked}
            self.ledger.note(trial.number, **{SAID: said})
            self.ledger.keep(kept)
        return verdict

    def _finish(
        self, number: int, state: TrialState, values: Sequence[float] | None = None
    ) -> None:
        trial = self.ledger.finish(number, state, values)
        del self._entered[number]
        self.proposer.learn(trial)
        self.on_change(trial)

    def _values(self, trial: FrozenTrial) -> list[float]:
        facts = {**trial.user_attrs, "accuracy": curve(trial)[-1]}
        return [float(facts[objective]) for objective in self.file.objectives]
