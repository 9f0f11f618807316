"""Samplers by the names a space file gives them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from afi_search.registry import SAMPLERS
from afi_search.search.samplers.known_cost import KnownCostSampler
from afi_search.space import Architecture, Space, SpaceFile
from afi_search.space.objective import losses

if TYPE_CHECKING:
    from afi_search.cost import SpaceCosts

GRID = "grid"
KNOWN_COST = "known-cost"

SamplerFactory = Callable[[SpaceFile, int], BaseSampler]


def register_sampler(name: str, make: SamplerFactory) -> None:
    """Make a sampler known by its name.

    A new one is made for every proposal, from the study's seed and the trial's number, so that a
    study resumes as if it had never been stopped: what a sampler knows, it reads from the study it
    is shown, whose trials have the values of the objectives, in their order and directions.

    Args:
        name: as it is written under `search: sampler:`.
        make: `make(file, seed)` returns the Optuna sampler, drawing from that seed.

    Raises:
        ValueError: another sampler has that name.

    Example:
        In `mine.py` beside a space file that has `imports: [mine]` and `search: {sampler: quasi}`:

        ```python
        import afi_search
        from optuna.samplers import QMCSampler

        afi_search.register_sampler("quasi", lambda file, seed: QMCSampler(seed=seed))
        ```

    >>> register_sampler("dice", lambda file, seed: RandomSampler(seed=seed))
    >>> "dice" in SAMPLERS
    True
    """
    SAMPLERS.register(name, make)


def make_sampler(file: SpaceFile, seed: int) -> BaseSampler:
    """Return the Optuna sampler that a space file names, drawing from that seed."""
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        sampler: BaseSampler = SAMPLERS.get(file.search.sampler)(file, seed)
    return sampler


def known_cost_sampler(
    space: Space, costs: SpaceCosts, hint: Callable[[Architecture], float] | None = None
) -> KnownCostSampler:
    """Return the sampler that knows a space's choices, costs and constraints.

    `hint` is an estimate of an architecture's accuracy, where there is one.
    """
    file = space.file
    objectives, limits = file.costs, file.constraints.limits()

    def cost_of(params: Mapping[str, str]) -> list[float]:
        figures = costs.of(space.answered(params)).figures()
        return [*(float(figures[name]) for name in objectives), *losses(figures, limits)]

    return KnownCostSampler(
        cost_of,
        bounds=[*(None for _ in objectives), *losses(limits, limits)],
        groups=space.groups,
        learned=file.objectives.index("accuracy"),
        hint_of=None if hint is None else lambda params: [hint(space.answered(params))],
        seed=file.search.seed,
    )


def _of_the_space(file: SpaceFile, seed: int) -> BaseSampler:
    raise ValueError(f"{file.search.sampler} needs more of the space than its file")


register_sampler("tpe", lambda file, seed: TPESampler(seed=seed))
register_sampler(
    "tpe-multivariate", lambda file, seed: TPESampler(seed=seed, multivariate=True, group=True)
)
register_sampler("nsga2", lambda file, seed: NSGAIISampler(seed=seed))
register_sampler("gp", lambda file, seed: GPSampler(seed=seed))
register_sampler("random", lambda file, seed: RandomSampler(seed=seed))
register_sampler(GRID, _of_the_space)
register_sampler(KNOWN_COST, _of_the_space)
