"""The known-cost sampler of a space file: what each stage may have, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from afi_search.cost import SpaceCosts
from afi_search.search.samplers.known_cost import KnownCostSampler
from afi_search.space import Architecture, Space
from afi_search.space.objective import losses


def known_cost_sampler(
    space: Space, costs: SpaceCosts, hint: Callable[[Architecture], float] | None = None
) -> KnownCostSampler:
    """Return the sampler that knows a space's choices, costs and constraints.

    Args:
        space: to search.
        costs: of its architectures.
        hint: an estimate of an architecture's accuracy, where there is one.
    """
    file = space.file
    limits = file.constraints.limits()

    def cost_of(params: Mapping[str, str]) -> list[float]:
        figures = costs.of(space.answered(params)).figures()
        return [*(float(figures[name]) for name in file.costs), *losses(figures, limits)]

    return KnownCostSampler(
        cost_of,
        bounds=[*(None for _ in file.costs), *losses(limits, limits)],
        groups=space.groups,
        learned=file.objectives.index("accuracy"),
        hint_of=None if hint is None else lambda params: [hint(space.answered(params))],
        seed=file.search.seed,
    )
