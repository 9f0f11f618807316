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
        """Return what an architecture costs; a KeyError: a part of it was not measured."""
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
        """Read the table of a study's folder; None: there is none. A UserError: it is no table."""
        path = next((p for n in (FILE, _MEASURED_FILE) if (p := folder / n).is_file()), None)
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
            raise UserError(
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
    return replace(table, stages=tuple(map(_worked_out, table.stages, offered, shapes)))


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
    measured: Mapping[StageChoice | None, Count], offered: Iterable[StageChoice], shape: StageShape
) -> dict[StageChoice | None, Count]:
    """Return what a stage costs with each choice, from what `_few` of them have been measured."""
    attentions = sorted({c.attention for c in measured if c and c.attention})

    def terms(choices: Sequence[StageChoice]) -> NDArray[np.float64]:
        """Return choices x terms of which a cost is a sum: one, hidden units, each attention."""
        hidden = [hidden_units(afi_channels(shape, c.width), c.ratio) for c in choices]
        added = [[c.attention == name for name in attentions] for c in choices]
        return np.column_stack([np.ones(len(choices)), hidden, np.array(added, dtype=float)])

    costs: dict[StageChoice | None, Count] = {None: measured[None]}
    for kind in dict.fromkeys((c.width, c.scorer) for c in offered):
        known, wanted = (
            [c for c in some if c and (c.width, c.scorer) == kind] for some in (measured, offered)
        )
        figures = np.array([measured[choice] for choice in known], dtype=float)
        each, *_ = np.linalg.lstsq(terms(known), figures, rcond=None)
        rows = np.rint(terms(wanted) @ each).astype(int).tolist()
        costs |= {choice: Count(*row) for choice, row in zip(wanted, rows, strict=True)}
    return costs
