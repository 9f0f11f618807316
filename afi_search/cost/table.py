"""One table of costs: what each choice of each stage costs, in whole numbers that add up.

What a stage puts out has the same shape whatever is chosen in it, and stages run one after
another, so that an architecture costs what the plain backbone costs and what each of its choices
adds. MACs, parameters and the memory of a training step add up exactly; `benchmarks/latency.py`
shows how far sums of latencies are from whole networks' times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from operator import sub
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from afi_search.cost.cost import Count, Parts
from afi_search.errors import UserError
from afi_search.files import write_whole
from afi_search.space import Architecture, StageChoice, StageShape, get_backbone
from afi_search.space.architecture import afi_channels, canonical_choice, choice_text, hidden_units

FILE = "costs.json"
_MEASURED_FILE = "latency.json"  # of a study begun when latencies alone were kept

Choices = Sequence[Collection[StageChoice | None]]
Measure = Callable[[Architecture], Parts]
K = TypeVar("K")


class CostTableError(UserError):
    """A table of costs cannot be read."""


@dataclass(frozen=True)
class CostTable:
    """Costs of whole networks and of each choice of each stage: MACs, parameters, bytes, ns.

    Attributes:
        networks: of whole networks.
        stages: for each stage, of the stage with each of its choices; off (None) is among them.
            Empty for a list of architectures.
        device: description of the device that latencies were measured on.
    """

    networks: Mapping[Architecture, Count]
    stages: tuple[Mapping[StageChoice | None, Count], ...] = ()
    device: str = ""

    def of(self, architecture: Architecture) -> Count:
        """Return what an architecture costs.

        Raises:
            KeyError: a part of it was not measured.
        """
        if architecture in self.networks or not self.stages:
            return self.networks[architecture]
        choices = zip(self.added, architecture.stages, strict=True)
        parts = (self._plain[architecture.backbone], *(added[choice] for added, choice in choices))
        return Count(*map(sum, zip(*parts, strict=True)))

    @cached_property
    def _plain(self) -> dict[str, Count]:
        """Counts of plain backbones, by name."""
        return {a.backbone: count for a, count in self.networks.items() if not any(a.stages)}

    @cached_property
    def added(self) -> tuple[Mapping[StageChoice | None, Count], ...]:
        """For each stage, what each choice adds to the plain backbone."""
        return tuple(
            {choice: Count(*map(sub, cost, stage[None])) for choice, cost in stage.items()}
            for stage in self.stages
        )

    def timed(self, times: CostTable) -> CostTable:
        """Return the same costs with the latencies of another table, of the same networks."""

        def timed(costs: Mapping[K, Count], times: Mapping[K, Count]) -> dict[K, Count]:
            return {key: c._replace(latency=times[key].latency) for key, c in costs.items()}

        stages = tuple(map(timed, self.stages, times.stages))
        return CostTable(timed(self.networks, times.networks), stages, times.device)

    def write(self, folder: Path) -> None:
        """Write the table into a study's folder."""
        document = {
            "columns": Count._fields,
            "device": self.device,
            "networks": {a.text: cost for a, cost in self.networks.items()},
            "stages": [{choice_text(c): cost for c, cost in s.items()} for s in self.stages],
        }
        write_whole(folder / FILE, json.dumps(document) + "\n")

    @classmethod
    def read(cls, folder: Path) -> CostTable | None:
        """Read the table of a study's folder; None where there is none.

        Raises:
            CostTableError: the file is not such a table.
        """
        path = next((p for n in (FILE, _MEASURED_FILE) if (p := folder / n).exists()), None)
        if path is None:
            return None
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            columns = raw.get("columns", ["latency"])

            def count(row: Any) -> Count:
                values = row if isinstance(row, list) else [row]
                return Count(**dict(zip(columns, map(int, values), strict=True)))

            return cls(
                {Architecture.parse(text): count(row) for text, row in raw["networks"].items()},
                tuple(
                    {StageChoice.parse(text): count(row) for text, row in stage.items()}
                    for stage in raw["stages"]
                ),
                raw["device"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise CostTableError(
                f"{path}: is not a table of costs ({error}); remove it, and they are measured again"
            ) from None


def measure_choices(backbone: str, choices: Choices, measure: Measure) -> CostTable:
    """Measure every choice of every stage, as many as possible in one network."""
    plain = Architecture.plain(backbone)
    whole, of_plain = measure(plain)
    stages: list[dict[StageChoice | None, Count]] = [{None: cost} for cost in of_plain]
    for placed in zip_longest(*(dict.fromkeys(offered) for offered in choices)):
        architecture = Architecture(backbone, placed)
        measured = measure(architecture).stages
        for stage, choice, cost in zip(stages, architecture.stages, measured, strict=True):
            stage.setdefault(choice, cost)
    return CostTable({plain: whole}, tuple(stages))


def count_choices(backbone: str, choices: Choices, count: Measure) -> CostTable:
    """Measure a few choices of every stage, and work out from them what the others cost.

    That is exact for what is counted (MACs, parameters, memory): it is linear in the hidden units
    of AFI's scorer, and an add-on attention costs the same whatever the ratio is.
    """
    shapes = get_backbone(backbone).stages
    offered = [
        [choice for offer in of_stage if (choice := canonical_choice(offer, shape)) is not None]
        for of_stage, shape in zip(choices, shapes, strict=True)
    ]
    table = measure_choices(backbone, [_few(of_stage) for of_stage in offered], count)
    stages = (
        {None: stage[None], **{choice: _worked_out(choice, stage, shape) for choice in of_stage}}
        for stage, of_stage, shape in zip(table.stages, offered, shapes, strict=True)
    )
    return replace(table, stages=tuple(stages))


def _few(offered: Iterable[StageChoice]) -> list[StageChoice]:
    """Return the choices of a stage from which all that are offered can be worked out.

    Of each width and scorer those with the lowest and the highest ratio, without attention, and
    one choice with each width, scorer and attention.
    """
    ends: dict[tuple[str, str], list[StageChoice]] = {}
    attended: dict[tuple[str, str, str], StageChoice] = {}
    for choice in sorted(offered, key=lambda choice: choice.ratio):
        bare = replace(choice, attention=None)
        ends.setdefault((choice.width, choice.scorer), [bare, bare])[1] = bare
        if choice.attention is not None:
            attended.setdefault((choice.width, choice.scorer, choice.attention), choice)
    return [*(end for both in ends.values() for end in both), *attended.values()]


def _worked_out(
    choice: StageChoice, measured: Mapping[StageChoice | None, Count], shape: StageShape
) -> Count:
    """Return what a stage costs with a choice, from what `_few` of them were measured to cost."""

    def bare(choice: StageChoice) -> NDArray[np.int64]:
        """Return what it costs but for its attention, one figure a column."""
        alike = (choice.width, None, choice.scorer)
        known = {
            c.ratio: np.array(cost, dtype=np.int64)
            for c, cost in measured.items()
            if c and (c.width, c.attention, c.scorer) == alike
        }
        low, high = min(known), max(known)
        channels = afi_channels(shape, choice.width)
        fewest, units, most = (hidden_units(channels, r) for r in (high, choice.ratio, low))
        return known[high] + (known[low] - known[high]) * (units - fewest) // max(1, most - fewest)

    cost = bare(choice)
    if choice.attention is not None:
        alike = replace(choice, ratio=1)
        attended = next(c for c in measured if c and replace(c, ratio=1) == alike)
        cost = cost + np.array(measured[attended]) - bare(attended)
    return Count(*map(int, cost))
