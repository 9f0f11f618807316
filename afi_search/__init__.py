"""Find where Attentive Feature Integration (AFI) pays in a CNN."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from afi_search.registry import lazy_exports

os.environ.setdefault("GOMP_SPINCOUNT", "20000")
"""Threads that wait soon leave their core to others; PyTorch reads it when it is imported."""

if TYPE_CHECKING:
    from afi_search.api import Study as Study
    from afi_search.api import run_study as run_study
    from afi_search.cost import measure as measure
    from afi_search.data import DatasetSpec as DatasetSpec
    from afi_search.data import register_dataset as register_dataset
    from afi_search.errors import UserError as UserError
    from afi_search.model import load as load
    from afi_search.nn import Supernet as Supernet
    from afi_search.nn import build as build
    from afi_search.search.listener import Listener as Listener
    from afi_search.search.pruners import register_pruner as register_pruner
    from afi_search.search.samplers import register_sampler as register_sampler
    from afi_search.search.samplers.known_cost import KnownCostSampler as KnownCostSampler
    from afi_search.space import Architecture as Architecture
    from afi_search.space import Attention as Attention
    from afi_search.space import Backbone as Backbone
    from afi_search.space import Objective as Objective
    from afi_search.space import Space as Space
    from afi_search.space import register_attention as register_attention
    from afi_search.space import register_backbone as register_backbone
    from afi_search.space import register_objective as register_objective
    from afi_search.study import Ledger as Ledger
    from afi_search.study import front as front
    from afi_search.study.facts import __version__ as __version__
    from afi_search.study.study import Interrupted as Interrupted

_EXPORTS = {
    "api": ("Study", "run_study"),
    "cost": ("measure",),
    "data": ("DatasetSpec", "register_dataset"),
    "errors": ("UserError",),
    "model": ("load",),
    "nn": ("Supernet", "build"),
    "search.listener": ("Listener",),
    "search.pruners": ("register_pruner",),
    "search.samplers": ("register_sampler",),
    "search.samplers.known_cost": ("KnownCostSampler",),
    "space": (
        *("Architecture", "Attention", "Backbone", "Objective", "Space"),
        *("register_attention", "register_backbone", "register_objective"),
    ),
    "study": ("Ledger", "front"),
    "study.facts": ("__version__",),
    "study.study": ("Interrupted",),
}
__all__ = [name for names in _EXPORTS.values() for name in names if name != "__version__"]

if not TYPE_CHECKING:  # each when it is first asked for: training needs neither Ray nor Optuna
    __getattr__ = lazy_exports(__name__, _EXPORTS)
