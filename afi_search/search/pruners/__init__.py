"""Pruners by the names a space file gives them."""

from __future__ import annotations

from optuna import Study
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import FrozenTrial

from afi_search.search.pruners.mo_asha import MultiObjectiveAsha, Verdict
from afi_search.space import SpaceFile

__all__ = ["MultiObjectiveAsha", "Verdict", "judge", "make_pruner"]


def make_pruner(file: SpaceFile) -> BasePruner:
    """Return the Optuna pruner that a space file describes."""
    settings = file.search.pruner
    first, factor, trials = settings.grace_period, settings.reduction_factor, settings.min_trials
    match settings.name:
        case "none":
            return NopPruner()
        case "mo-asha":
            return MultiObjectiveAsha(file.costs, first, factor, trials)
        case "asha":
            return SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
        case "hyperband":
            return HyperbandPruner(
                min_resource=first, max_resource=file.recipe.epochs, reduction_factor=factor
            )
        case "median":
            return MedianPruner(
                n_startup_trials=trials, n_warmup_steps=first - 1, n_min_trials=trials
            )


def judge(pruner: BasePruner, study: Study, trial: FrozenTrial) -> Verdict | None:
    """Ask a pruner about a trial at its last epoch; None where it had nothing to decide."""
    if isinstance(pruner, MultiObjectiveAsha):
        return pruner.judge(study, trial)
    if pruner.prune(study, trial):
        return Verdict(True, f"stopped at epoch {trial.last_step} by {type(pruner).__name__}")
    return None
