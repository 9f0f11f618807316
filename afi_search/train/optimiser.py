"""SGD and its learning rate, as a recipe says."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from afi_search.space.recipe import BaseRecipe

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(model: nn.Module, recipe: BaseRecipe) -> list[dict[str, Any]]:
    """Split the trained parameters into those that decay and those that do not.

    With `weight_decay_on_norm` everything decays; without it, norms' parameters and biases don't.
    """
    decaying: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            spared = isinstance(module, NORMS) or name == "bias"
            exempt = spared and not recipe.weight_decay_on_norm
            (free if exempt else decaying).append(parameter)
    groups = [(decaying, recipe.weight_decay), (free, 0.0)]
    return [{"params": part, "weight_decay": decay} for part, decay in groups if part]


def build_optimiser(model: nn.Module, recipe: BaseRecipe, rate: torch.Tensor) -> torch.optim.SGD:
    """Return fused SGD whose learning rate is read from the tensor `rate` at every step.

    Its momentum is there from the start, zero, which gives the same first step as none.
    """
    optimiser = torch.optim.SGD(
        parameter_groups(model, recipe),
        lr=rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        fused=True,
    )
    if recipe.momentum > 0:
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimiser


def momenta(optimiser: torch.optim.SGD) -> list[torch.Tensor]:
    """Return the tensors that the optimiser changes besides the parameters."""
    buffers = (state.get("momentum_buffer") for state in optimiser.state.values())
    return [buffer for buffer in buffers if buffer is not None]


def learning_rate(recipe: BaseRecipe, step: int, total: int) -> float:
    """Return the learning rate of one step.

    For the first round(warmup * total) steps the rate rises in a straight line and reaches
    `recipe.lr` with the last of them. Then `step` divides it by `recipe.drop` at each fraction
    of all steps in `recipe.drops_at`; `cosine` (Loshchilov and Hutter, 2017, without restarts)
    and `triangular` (Smith, 2017, one cycle) bring it from `recipe.lr` down to zero, which the
    step after the last one would have. No step has a rate of zero.

    Args:
        step: 0 <= step < total.
        total: steps of the whole training.

    >>> from afi_search.space.recipe import Recipe
    >>> recipe = Recipe(lr=0.4, schedule="triangular", warmup=0.5)
    >>> [learning_rate(recipe, step, 4) for step in range(4)]
    [0.2, 0.4, 0.4, 0.2]
    """
    rise = round(recipe.warmup * total)
    if step < rise:
        return recipe.lr * (step + 1) / rise
    if recipe.schedule == "step":
        drops = sum(step >= round(fraction * total) for fraction in recipe.drops_at)
        return recipe.lr / recipe.drop**drops
    done = (step - rise) / (total - rise)
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * done)) / 2
    return recipe.lr * (1 - done)
