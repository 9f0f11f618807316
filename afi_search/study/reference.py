"""Networks that are known before any trial: the plain backbone and the paper's own points.

Their costs are those that the study has kept, or measured with the same convention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from pandas import DataFrame

from afi_search.cost import Cost
from afi_search.space.architecture import Architecture
from afi_search.space.objective import losses, own_measures
from afi_search.study.info import StudyInfo
from afi_search.study.paper import PaperResult, paper_results_for


@dataclass(frozen=True)
class References:
    """The networks that the trials of a study are compared with.

    `plain` is what each backbone of the study costs without AFI; `paper` the paper's results for
    these on this data set, each with our measure of its cost: there may be none.
    """

    plain: Mapping[str, Cost]
    paper: tuple[tuple[PaperResult, Cost], ...]


def measure_references(info: StudyInfo, records: DataFrame | None = None) -> References:
    """Measure the plain backbones of a study and the paper's points for them.

    Memory and latency are those of `records`, as far as the plain backbones were tried.
    """
    results = [
        result
        for backbone in info.backbones
        for result in paper_results_for(backbone, info.dataset, info.image_size)
    ]
    plain = {name: cost_of(Architecture.plain(name), info) for name in info.backbones}
    if records is not None:
        plain = {name: _as_tried(name, cost, records) for name, cost in plain.items()}
    return References(
        plain=plain,
        paper=tuple((row, cost_of(Architecture.parse(row.architecture), info)) for row in results),
    )


def reference_point(
    references: References, info: StudyInfo, costs: Sequence[str] = ("macs",)
) -> tuple[float, ...]:
    """Return the reference of the hypervolume: (accuracy of guessing, twice the plain costs).

    Of an objective that goes up it is nothing instead of twice. Of several backbones the dearest
    counts. The reference depends on nothing but backbones and data set, so that hypervolumes can be
    compared over time and between studies that share these. Where no plain backbone has that cost,
    the reference is +inf.
    """
    plain = [cost.figures() for cost in references.plain.values()]
    known = [[loss for of in plain if name in of for loss in losses(of, [name])] for name in costs]
    return 1 / info.num_classes, *(
        max((loss + abs(loss) for loss in values), default=np.inf) for values in known
    )


def _as_tried(backbone: str, cost: Cost, records: DataFrame) -> Cost:
    tried = records[records["architecture"] == backbone]
    if tried.empty:
        return cost
    measured = ("memory", "latency", *own_measures())
    known = {name: float(value) for name, value in tried.iloc[0].items() if name in measured}
    known = {name: value for name, value in known.items() if np.isfinite(value)}
    own = {name: known.pop(name) for name in own_measures() if name in known}
    return replace(cost, own=own, **known)  # type: ignore[arg-type]


def cost_of(architecture: Architecture, info: StudyInfo) -> Cost:
    """Return what an architecture costs: as the study has kept it, or measured now."""
    if info.costs is not None:
        with suppress(KeyError):
            return info.costs.of(architecture).cost
    from afi_search.cost import measure

    return measure(architecture, num_classes=info.num_classes, image_size=info.image_size)
