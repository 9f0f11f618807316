"""The known-cost sampler of a space file: what each stage may have, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping

from afi_search.cost import SpaceCosts
from afi_search.search.samplers.known_cost import KnownCostSampler
from afi_search.space import Space
from afi_search.space.objective import losses


def known_cost_sampler(space: Space, costs: SpaceCosts) -> KnownCostSampler:
    """Return the sampler that knows a space's choices, costs and constraints."""
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
        seed=file.search.seed,
    )
