"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from afi_search.space.recipe import BaseRecipe


def learning_rate(recipe: BaseRecipe, step: int, total: int) -> float:
    """Return the learning rate of one step.

    For the first round(warmup * total) steps the rate rises in a straight line and reaches
    `recipe.lr` with the last of them. Then `step` divides it by `recipe.drop` at each fraction
    of all steps in `recipe.drops_at`; `cosine` (Loshchilov and Hutter, 2017, without restarts)
    and `triangular` (Smith, 2017, one cycle) bring it from `recipe.lr` down to zero, which the
    step after the last one would have. No step has a rate of zero.

    Args:
        recipe: names the schedule.
        step: 0 <= step < total.
        total: steps of the whole training.
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
