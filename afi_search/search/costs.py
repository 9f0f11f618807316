"""What the architectures of a space cost, and how many of them keep its constraints."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property

import numpy as np

from afi_search.cost import Cost, StageCosts, measure, stage_costs
from afi_search.space import Architecture, Space


class SpaceCosts:
    """Costs of a space's architectures, for images and classes of one data set.

    Costs add up over stages, so a network is measured once per choice and not once per
    architecture.
    """

    def __init__(self, space: Space, *, num_classes: int, image_size: int) -> None:
        self.space = space
        self.num_classes = num_classes
        self.image_size = image_size

    def of(self, architecture: Architecture) -> Cost:
        """Return what an architecture costs, whether it is in the space or not."""
        if self.space.file.architectures or architecture not in self.space:
            return measure(architecture, num_classes=self.num_classes, image_size=self.image_size)
        return self._stages.cost(architecture)

    def allow(self, cost: Cost) -> bool:
        """Whether a cost keeps the constraints of the space file."""
        return self.space.file.constraints.allow(asdict(cost))

    @cached_property
    def feasible(self) -> int:
        """The number of architectures that keep the constraints, counted exactly."""
        if self.space.file.architectures:
            return sum(self.allow(self.of(a)) for a in self.space.architectures())
        limits = [limit for _, limit in self.space.file.constraints]
        if all(limit is None for limit in limits):
            return self.space.size
        bounds = np.array([np.inf if limit is None else float(limit) for limit in limits])
        plain = self._stages.plain
        bounds -= (plain.macs, plain.params)
        return count_below([self._deltas(stage) for stage in range(self._depth)], bounds)

    def extremes(self) -> tuple[Architecture, Architecture]:
        """Return the architectures with the fewest and the most MACs (then parameters)."""
        if self.space.file.architectures:
            ordered = sorted(self.space.architectures(), key=self._size)
            return ordered[0], ordered[-1]
        ends: list[Architecture] = []
        for end in (min, max):
            stages = tuple(
                end(choices, key=lambda choice: self._delta(stage, choice))
                for stage, choices in enumerate(self.space.stage_choices)
            )
            ends.append(Architecture(self.space.file.backbone or "", stages))
        return ends[0], ends[1]

    def _size(self, architecture: Architecture) -> tuple[int, int]:
        cost = self.of(architecture)
        return cost.macs, cost.params

    @property
    def _depth(self) -> int:
        return len(self.space.stage_choices)

    @cached_property
    def _stages(self) -> StageCosts:
        assert self.space.file.backbone is not None
        return stage_costs(
            self.space.file.backbone,
            self.space.stage_choices,
            num_classes=self.num_classes,
            image_size=self.image_size,
        )

    def _delta(self, stage: int, choice: object) -> tuple[int, int]:
        count = self._stages.deltas[stage][choice]  # type: ignore[index]
        return count.macs, count.params

    def _deltas(self, stage: int) -> np.ndarray:
        return np.array([self._delta(stage, c) for c in self.space.stage_choices[stage]])


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
    total = np.zeros((1, columns))
    for part in parts:
        total = (total[:, None, :] + part[None, :, :]).reshape(-1, columns)
    return total
