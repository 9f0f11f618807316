"""What the architectures of a space cost, and how many of them keep its constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from afi_search.cost.cost import UNITS, Cost, Count, Parts
from afi_search.cost.table import Choices, CostTable, Measure, count_choices, measure_choices
from afi_search.space import Architecture, Space
from afi_search.space.objective import measure_own, own_measures


@dataclass(eq=False, kw_only=True)
class SpaceCosts:
    """Costs of a space's architectures, for images and classes of one data set.

    Costs add up over stages, so a few networks are measured and not every architecture. Memory is
    counted, and latency measured on the target's device, where the space file asks for it.

    Attributes:
        kept: the table of a study that is resumed, to be used as far as it goes: a study has one
            latency an architecture, and nothing is counted again.
        progress: is told, in words, which network's latency is being measured.
    """

    space: Space = field(kw_only=False)
    num_classes: int
    image_size: int
    kept: CostTable | None = None
    progress: Callable[[str], object] = lambda _: None

    @cached_property
    def table(self) -> CostTable:
        """The costs of all that may be tried; measured when it is first asked for.

        A UserError: latency is asked for, and this machine has not the target's device.
        """
        asked = {"macs", *filter(self.space.file.asks_for, ("memory", "latency"))}
        known = self._known()
        if self.kept is not None and asked <= known:
            return self.kept
        counted = self._measure(self._count, count_choices)
        if "latency" not in asked:
            return counted
        return counted.timed(self.kept if self.kept and "latency" in known else self._timed())

    def of(self, architecture: Architecture) -> Cost:
        """Return what an architecture costs, in the space or not.

        A KeyError: latency is asked for, and a part of the architecture was not measured.
        """
        try:
            cost = self.table.of(architecture).cost
        except KeyError:
            if self.space.file.asks_for("latency"):
                raise
            cost = self._count(architecture).whole.cost
        own = {
            name: measure_own(name, architecture, cost, self.num_classes, self.image_size)
            for name in self._own_measures
        }
        return replace(cost, own=own) if own else cost

    @cached_property
    def _own_measures(self) -> list[str]:
        return self.space.file.own_measures

    def allow(self, cost: Cost) -> bool:
        """Whether a cost keeps the constraints of the space file."""
        return self.space.file.constraints.allow(cost.figures())

    @property
    def any_feasible(self) -> bool:
        """Whether any architecture keeps the constraints."""
        if self.feasible is None:
            return any(self.allow(self.of(a)) for a in self.space.architectures())
        return self.feasible > 0

    @cached_property
    def feasible(self) -> int | None:
        """The number of architectures that keep the constraints, counted exactly.

        None where that takes measuring every one of a product of choices: a limit is on what a
        user's function measures, which need not add up over stages.
        """
        if self.space.file.architectures:
            return sum(self.allow(self.of(a)) for a in self.space.architectures())
        limits = self.space.file.constraints.limits()
        if own_measures(limits):
            return None
        if not limits:
            return self.space.size
        plain = self.table.of(Architecture.plain(self.space.file.backbone or ""))
        bounds = [_bound(name, limit) - getattr(plain, name) for name, limit in limits.items()]
        added = [
            np.array([[getattr(of_stage[choice], name) for name in limits] for choice in choices])
            for of_stage, choices in zip(self.table.added, self.space.stage_choices, strict=True)
        ]
        return count_below(added, np.array(bounds))

    def extremes(self) -> tuple[Architecture, Architecture]:
        """Return the architectures with the fewest and the most MACs (then parameters)."""
        return self.least("macs", "params"), self.least("macs", "params", sign=-1)

    def least(self, *names: str, sign: int = 1) -> Architecture:
        """Return the architecture that has the least of a cost, by its name in `Cost`.

        Further names decide between equals; the most instead with a `sign` of -1.
        """

        def figures(count: Count) -> list[int]:
            return [sign * getattr(count, name) for name in names]

        if self.space.file.architectures:
            return min(self.space.architectures(), key=lambda a: figures(self.table.of(a)))
        stages = zip(self.table.added, self.space.stage_choices, strict=True)
        return Architecture(
            self.space.file.backbone or "",
            tuple(min(choices, key=lambda c: figures(added[c])) for added, choices in stages),
        )

    def _measure(
        self, measure: Measure, of_stages: Callable[[str, Choices, Measure], CostTable]
    ) -> CostTable:
        if self.space.file.backbone is None:
            return CostTable({network: measure(network).whole for network in self._networks})
        return of_stages(self.space.file.backbone, self._choices, measure)

    def _timed(self) -> CostTable:
        from afi_search.cost.latency import describe_target, target_device, time_stages

        target = self.space.file.target
        device = target_device(target.device)

        def time(architecture: Architecture) -> Parts:
            self.progress(f"Measuring latency on the {device.type}: {architecture}")
            return time_stages(
                architecture,
                num_classes=self.num_classes,
                image_size=self.image_size,
                device=device,
                batch_size=target.batch,
            )

        table = self._measure(time, measure_choices)
        return replace(table, device=describe_target(device, target.batch))

    @cached_property
    def _count(self) -> Callable[[Architecture], Parts]:
        from afi_search.cost.counts import count  # networks, which a study that is resumed has not

        file = self.space.file
        return partial(
            count,
            num_classes=self.num_classes,
            image_size=self.image_size,
            batch_size=file.recipe.batch_size if file.asks_for("memory") else None,
        )

    @property
    def _networks(self) -> tuple[Architecture, ...]:
        """What may be tried of a list."""
        return (*self.space.file.architectures, *self.space.first_to_try)

    @property
    def _choices(self) -> Choices:
        """What may be tried in each stage."""
        return [
            (*offered, *(architecture.stages[stage] for architecture in self.space.first_to_try))
            for stage, offered in enumerate(self.space.stage_choices)
        ]

    def _known(self) -> set[str]:
        """Return the costs that the kept table has of all that may be tried."""
        kept, choices = self.kept, self._choices
        if kept is None:
            return set()
        if self.space.file.backbone is None:
            covered = kept.networks.keys() >= set(self._networks)
        else:
            covered = len(choices) == len(kept.stages) and all(
                stage.keys() >= set(of) for stage, of in zip(kept.stages, choices, strict=True)
            )
        columns = Count._fields if covered else ()
        return {name for name in columns if all(getattr(c, name) for c in kept.networks.values())}


def count_below(parts: list[NDArray[np.int64]], bounds: NDArray[np.int64]) -> int:
    """Count the ways to take one row of each part so that every column's sum keeps its bound.

    The parts are n_i x k each, the bounds k.

    >>> count_below([np.array([[1], [2]]), np.array([[1], [5]])], np.array([3]))
    2
    """
    half = len(parts) // 2
    sums = [_sums(some, len(bounds)) for some in (parts[:half], parts[half:])]
    few, many = sorted(sums, key=len)
    first, *others = np.ascontiguousarray(many[many[:, 0].argsort()].T)
    total = 0
    for left in bounds - few:
        below = np.searchsorted(first, left[0], side="right")
        keep = np.ones(below, dtype=bool)
        for column, most in zip(others, left[1:], strict=True):
            keep &= column[:below] <= most
        total += int(np.count_nonzero(keep))
    return total


def _sums(parts: list[NDArray[np.int64]], columns: int) -> NDArray[np.int64]:
    """Return the sums of all ways to take one row of each part."""
    total = np.zeros((1, columns), dtype=np.int64)
    for part in parts:
        total = (total[:, None, :] + part[None, :, :]).reshape(-1, columns)
    return total


def _bound(name: str, limit: float) -> int:
    """Return the largest whole number of a count that keeps the limit of a cost."""
    unit = UNITS.get(name, 1)
    bound = int(limit * unit) + 1
    while bound / unit > limit:
        bound -= 1
    return bound
