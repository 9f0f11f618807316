"""Pruners by the names a space file gives them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from optuna import Study
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from afi_search.registry import PRUNERS
from afi_search.search.pruners.mo_asha import MultiObjectiveAsha, Verdict
from afi_search.space import SpaceFile

__all__ = ["MultiObjectiveAsha", "Verdict", "judge", "make_pruner", "register_pruner"]

PrunerFactory = Callable[[SpaceFile], BasePruner]


def register_pruner(name: str, make: PrunerFactory) -> None:
    """Make a pruner known by its name.

    It is asked after every epoch of a trial, with the accuracies so far as the trial's intermediate
    values and its costs as user attributes. One that has a method `judge(study, trial)` like
    `MultiObjectiveAsha` can say why it stops a trial.

    Args:
        name: as it is written under `search: pruner:`.
        make: `make(file)` returns the Optuna pruner; `file.search.pruner` has the settings,
            `file.objectives` and `file.recipe.epochs` the rest.

    Raises:
        ValueError: another pruner has that name.

    Example:
        In `mine.py` beside a space file with `imports: [mine]` and `search: {pruner: hopeless}`:

        ```python
        import afi_search
        from optuna.pruners import ThresholdPruner

        afi_search.register_pruner("hopeless", lambda file: ThresholdPruner(lower=0.1))
        ```

    >>> register_pruner("never", lambda file: NopPruner())
    >>> "never" in PRUNERS
    True
    """
    PRUNERS.register(name, make)


def make_pruner(file: SpaceFile) -> BasePruner:
    """Return the Optuna pruner that a space file describes."""
    pruner: BasePruner = PRUNERS.get(file.search.pruner.name)(file)
    return pruner


def judge(pruner: BasePruner, study: Study, trial: FrozenTrial) -> tuple[Verdict | None, list[Any]]:
    """Ask a pruner about a trial at its last epoch.

    Returns:
        Its verdict, None where it had nothing to decide; and what it wants to keep in the storage,
        for `Ledger.keep`: it is not there yet.
    """
    study = copy(study)
    study._storage = noting = _Noting(study._storage)  # type: ignore[assignment]
    verdict: Verdict | None = None
    if hasattr(pruner, "judge"):
        verdict = pruner.judge(study, trial)
    elif not isinstance(pruner, NopPruner):
        stop = bool(pruner.prune(study, trial))
        verdict = Verdict(stop, f"stopped by {type(pruner).__name__}" if stop else "")
    return verdict, noting.told


class _Noting:
    """A storage that can be read, and notes what it is told to set."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("set_"):
            return lambda *values, **named: self.told.append([name, values, named])
        return getattr(self._storage, name)


def _make(file: SpaceFile) -> BasePruner:
    told = file.search.pruner
    grace_period, factor, least = told.grace_period, told.reduction_factor, told.min_trials
    match told.name:
        case "mo-asha":
            return MultiObjectiveAsha(file.costs, grace_period, factor, least)
        case "asha":
            return SuccessiveHalvingPruner(grace_period, factor)
        case "hyperband":
            return HyperbandPruner(grace_period, file.recipe.epochs, factor)
        case "median":
            return MedianPruner(least, grace_period - 1, n_min_trials=least)
        case _:
            return NopPruner()


for _name in ("none", "mo-asha", "asha", "hyperband", "median"):
    register_pruner(_name, _make)
