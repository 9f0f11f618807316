"""Published results of the paper, for comparison with ours.

Source: AFINets: Attentive Feature Integration Networks for Image Classification, Tables 4 and 5
and its ablations; the figures are in `paper_tables.json` beside this file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class PaperDataset:
    """How the paper trained on a data set, `cifar100` or `imagenet`, of square images."""

    name: str
    num_classes: int
    image_size: int
    epochs: int


@dataclass(frozen=True)
class PaperResult:
    """One row of the paper.

    Attributes:
        architecture: the canonical text under which it is built here.
        top1: test accuracy in per cent.
        top5: top-5 accuracy in per cent, where it is given.
        table: 4 or 5; None for a row of an ablation, which prints no counts.
        params: the exact number of parameters that the printed one stands for, where it is known.
        printed_params: the number of parameters as printed.
        flops_g: the printed FLOPs in billions, batch 32, the paper's convention.
        same_network: False where the printed counts are not those of the network it names, so that
            neither its counts nor its accuracy can be compared with ours.
    """

    model: str
    architecture: str
    dataset: PaperDataset
    top1: float
    top5: float | None = None
    table: int | None = None
    params: int | None = None
    printed_params: str | None = None
    flops_g: float | None = None
    same_network: bool = True
    note: str = ""

    @property
    def backbone(self) -> str:
        """The backbone's name: the architecture text up to the bracket."""
        return self.architecture.partition("(")[0]


@cache
def paper_data() -> dict[str, Any]:
    """Return the content of `paper_tables.json`."""
    text = resources.files(__package__).joinpath("paper_tables.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


@cache
def paper_results() -> tuple[PaperResult, ...]:
    """Return every row of the paper whose network can be named, Tables 4 and 5 first."""
    data = paper_data()
    datasets = {name: PaperDataset(name, **facts) for name, facts in data["datasets"].items()}
    return tuple(
        PaperResult(**(row | {"dataset": datasets[row["dataset"]]}))
        for row in [*data["results"], *data["attention"]]
    )


def paper_results_for(backbone: str, dataset: str, image_size: int) -> tuple[PaperResult, ...]:
    """Return the paper's comparable rows for a backbone on a data set; there may be none."""
    return tuple(
        result
        for result in paper_results()
        if result.same_network
        and result.backbone == backbone
        and (result.dataset.name, result.dataset.image_size) == (dataset, image_size)
    )
