"""Samplers by the names a space file gives them."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from afi_search.space.schema import SamplerName

GRID = "grid"


def make_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return the Optuna sampler of that name, drawing from that seed.

    Raises:
        ValueError: there is none; `grid` needs no sampler.
    """
    match name:
        case "tpe":
            return TPESampler(seed=seed)
        case "tpe-multivariate":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return TPESampler(seed=seed, multivariate=True, group=True)
        case "nsga2":
            return NSGAIISampler(seed=seed)
        case "gp":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return GPSampler(seed=seed)
        case "random":
            return RandomSampler(seed=seed)
        case _:
            raise ValueError(f"{name} is no sampler of Optuna's")
