"""Samplers by the names a space file gives them."""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from afi_search.space.schema import SamplerName


def make_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return the Optuna sampler of that name, drawing from that seed."""
    match name:
        case "tpe":
            return TPESampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(seed=seed)
        case "random":
            return RandomSampler(seed=seed)
