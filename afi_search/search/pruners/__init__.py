"""Pruners by the names a space file gives them."""

from __future__ import annotations

from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)

from afi_search.search.pruners.mo_asha import MultiObjectiveAsha
from afi_search.space.schema import Pruner

__all__ = ["MultiObjectiveAsha", "make_pruner"]


def make_pruner(settings: Pruner, epochs: int) -> BasePruner:
    """Return the Optuna pruner that a space file describes, for trials of at most `epochs`."""
    grace, reduction, peers = settings.grace, settings.reduction, settings.peers
    match settings.name:
        case "none":
            return NopPruner()
        case "mo-asha":
            return MultiObjectiveAsha(grace, reduction, peers)
        case "asha":
            return SuccessiveHalvingPruner(min_resource=grace, reduction_factor=reduction)
        case "hyperband":
            return HyperbandPruner(
                min_resource=grace, max_resource=epochs, reduction_factor=reduction
            )
        case "median":
            return MedianPruner(
                n_startup_trials=peers, n_warmup_steps=grace - 1, n_min_trials=peers
            )
