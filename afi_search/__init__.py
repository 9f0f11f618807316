"""Find where Attentive Feature Integration (AFI) pays in a CNN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afi_search.lazy import lazy_exports

if TYPE_CHECKING:
    from afi_search.api import Study, run_study
    from afi_search.cost import measure
    from afi_search.data import DatasetSpec, register_dataset
    from afi_search.model import load
    from afi_search.nn import Supernet, build
    from afi_search.search.listener import Listener
    from afi_search.search.pruners import register_pruner
    from afi_search.search.samplers import register_sampler
    from afi_search.search.samplers.known_cost import KnownCostSampler
    from afi_search.space import (
        Architecture,
        Attention,
        Backbone,
        Space,
        register_attention,
        register_backbone,
    )
    from afi_search.space.objective import Objective, register_objective
    from afi_search.study import Ledger, front

__version__ = "0.1.0"

_EXPORTS = {
    "Architecture": "afi_search.space",
    "Space": "afi_search.space",
    "Supernet": "afi_search.nn",
    "build": "afi_search.nn",
    "measure": "afi_search.cost",
    "KnownCostSampler": "afi_search.search.samplers.known_cost",
    "Ledger": "afi_search.study",
    "front": "afi_search.study",
    "load": "afi_search.model",
    "Study": "afi_search.api",
    "run_study": "afi_search.api",
    "Listener": "afi_search.search.listener",
    "Attention": "afi_search.space",
    "Backbone": "afi_search.space",
    "DatasetSpec": "afi_search.data",
    "Objective": "afi_search.space.objective",
    "register_attention": "afi_search.space",
    "register_backbone": "afi_search.space",
    "register_dataset": "afi_search.data",
    "register_objective": "afi_search.space.objective",
    "register_pruner": "afi_search.search.pruners",
    "register_sampler": "afi_search.search.samplers",
}

__all__ = [
    "Architecture",
    "Attention",
    "Backbone",
    "DatasetSpec",
    "KnownCostSampler",
    "Ledger",
    "Listener",
    "Objective",
    "Space",
    "Study",
    "Supernet",
    "build",
    "front",
    "load",
    "measure",
    "register_attention",
    "register_backbone",
    "register_dataset",
    "register_objective",
    "register_pruner",
    "register_sampler",
    "run_study",
]

if not TYPE_CHECKING:  # each when it is first asked for: training needs neither Ray nor Optuna
    __getattr__ = lazy_exports(__name__, _EXPORTS)
