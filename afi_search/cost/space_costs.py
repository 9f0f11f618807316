"""What the architectures of a space cost, and how many of them keep its constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property

import numpy as np

from afi_search.cost import Cost, Parts, StageCosts, count, count_kept, stage_costs
from afi_search.cost.latency_table import Latencies
from afi_search.space import Architecture, Space, StageChoice

_NANOSECONDS = 1e6  # of a millisecond


class SpaceCosts:
    """Costs of a space's architectures, for images and classes of one data set.

    Costs add up over stages, so a network is measured once per choice and not once per
    architecture. Memory is counted where the space file asks for it.

    Args:
        space: whose architectures.
        num_classes, image_size: of the data set.
        latencies: of the space, where its file asks for them.
    """

    def __init__(
        self,
        space: Space,
        *,
        num_classes: int,
        image_size: int,
        latencies: Latencies | None = None,
    ) -> None:
        self.space = space
        self.num_classes = num_classes
        self.image_size = image_size
        self._latencies = latencies

    def of(self, architecture: Architecture) -> Cost:
        """Return what an architecture costs, whether it is in the space or not.

        Raises:
            KeyError: latency is asked for, and a part of the architecture was not measured.
        """
        if self.space.file.architectures or architecture not in self.space:
            cost = self._count(architecture).whole.cost
        else:
            cost = self._stages.cost(architecture)
        if self._latencies is None:
            return cost
        return replace(cost, latency=self._latencies.of(architecture) / _NANOSECONDS)

    def allow(self, cost: Cost) -> bool:
        """Whether a cost keeps the constraints of the space file."""
        return self.space.file.constraints.allow(asdict(cost))

    @cached_property
    def feasible(self) -> int:
        """The number of architectures that keep the constraints, counted exactly."""
        if self.space.file.architectures:
            return sum(self.allow(self.of(a)) for a in self.space.architectures())
        limits = self.space.file.constraints.limits()
        if not limits:
            return self.space.size
        bounds = np.array(
            [_bound(name, limit) - self._plain(name) for name, limit in limits.items()]
        )
        added = [
            np.array([[self._added(name, stage, c) for name in limits] for c in choices])
            for stage, choices in enumerate(self.space.stage_choices)
        ]
        return count_below(added, bounds)

    def extremes(self) -> tuple[Architecture, Architecture]:
        """Return the architectures with the fewest and the most MACs (then parameters)."""
        if self.space.file.architectures:
            ordered = sorted(self.space.architectures(), key=self._size)
            return ordered[0], ordered[-1]

        def size(stage: int, choice: StageChoice | None) -> tuple[int, int]:
            return self._added("macs", stage, choice), self._added("params", stage, choice)

        return self._compose(min, size), self._compose(max, size)

    def least(self, name: str) -> Architecture:
        """Return the architecture that has the least of a cost, by its name in `Cost`."""
        if self.space.file.architectures:
            return min(self.space.architectures(), key=lambda a: asdict(self.of(a))[name])
        return self._compose(min, lambda stage, choice: self._added(name, stage, choice))

    def _compose(
        self,
        end: Callable[..., StageChoice | None],
        size: Callable[[int, StageChoice | None], object],
    ) -> Architecture:
        """Return the architecture whose choice is the least or the most in every stage."""
        return Architecture(
            self.space.file.backbone or "",
            tuple(
                end(choices, key=lambda choice, stage=stage: size(stage, choice))
                for stage, choices in enumerate(self.space.stage_choices)
            ),
        )

    def _size(self, architecture: Architecture) -> tuple[int, int]:
        cost = self.of(architecture)
        return cost.macs, cost.params

    def _added(self, name: str, stage: int, choice: StageChoice | None) -> int:
        if name == "latency":
            return 0 if self._latencies is None else self._latencies.added(stage, choice)
        return int(getattr(self._stages.deltas[stage][choice], name))

    def _plain(self, name: str) -> int:
        if name == "latency":
            plain = Architecture.plain(self.space.file.backbone or "")
            return 0 if self._latencies is None else self._latencies.of(plain)
        return int(getattr(self._stages.plain, name))

    @cached_property
    def _stages(self) -> StageCosts:
        assert self.space.file.backbone is not None
        return stage_costs(self.space.file.backbone, self.space.stage_choices, self._count)

    def _count(self, architecture: Architecture) -> Parts:
        sizes = {"num_classes": self.num_classes, "image_size": self.image_size}
        counted = count(architecture, **sizes)
        if not self.space.file.asks_for("memory"):
            return counted
        batch = self.space.file.recipe.batch_size
        return counted + count_kept(architecture, **sizes, batch_size=batch)


def count_below(parts: list[np.ndarray], bounds: np.ndarray) -> int:
    """Count the ways to take one row of each part so that every column's sum keeps its bound.

    Args:
        parts: n_i x k each.
        bounds: k, the largest sum allowed.
    """
    half = len(parts) // 2
    one, other = _sums(parts[:half], len(bounds)), _sums(parts[half:], len(bounds))
    if len(one) > len(other):
        one, other = other, one
    return sum(int((other <= bounds - row).all(axis=1).sum()) for row in one)


def _sums(parts: list[np.ndarray], columns: int) -> np.ndarray:
    """Return the sums of all ways to take one row of each part."""
    total = np.zeros((1, columns), dtype=np.int64)
    for part in parts:
        total = (total[:, None, :] + part[None, :, :]).reshape(-1, columns)
    return total


def _bound(name: str, limit: float) -> int:
    """Return the largest whole number that keeps a limit: of nanoseconds, for a latency."""
    if name != "latency":
        return int(limit)
    bound = int(limit * _NANOSECONDS) + 1
    while bound / _NANOSECONDS > limit:
        bound -= 1
    return bound
