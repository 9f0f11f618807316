"""The paper's Table 6, peak memory of ResNet-50 with and without AFI, with ours beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch
from pandas import DataFrame
from rich.console import Group, RenderableType
from rich.text import Text

from afi_search.analysis.memory import MIB, Memory, allocated, traced
from afi_search.files import csv_of
from afi_search.nn import build
from afi_search.report.table import terminal_table
from afi_search.space import Architecture
from afi_search.study.paper import paper_data

BATCH_SIZE = 64
TRACED = "all tensors alive at a time, weights, gradients and momentum among them; float32"
ALLOCATED = "peak of the GPU's allocator, weights, gradients and momentum included; float32"
PAPER = ["paper_training_mib", "paper_testing_mib"]
OURS = ["training_mib", "testing_mib", "kept_for_backward_mib"]
RATIOS = ["training_ratio", "testing_ratio"]


def measure_memory(
    architecture: Architecture, num_classes: int, image_size: int, device: torch.device
) -> Memory:
    """Measure by the allocator where the device is a GPU, otherwise by tracing."""
    make = partial(build, architecture, num_classes=num_classes, image_size=image_size)
    if device.type == "cuda":
        return allocated(make, image_size, BATCH_SIZE, device)
    return traced(make, image_size, BATCH_SIZE)


def paper_table6(device: torch.device) -> DataFrame:
    """Measure the networks of the paper's Table 6, at 224 pixels and 1,000 classes."""
    facts = paper_data()["peak_memory_mib"]["results"]
    architectures = [Architecture.parse(each["architecture"]) for each in facts]
    return memory_table(
        f"Table 6: peak memory in MiB, ImageNet, batches of {BATCH_SIZE}",
        architectures,
        [measure_memory(architecture, 1000, 224, device) for architecture in architectures],
        how(device),
        [(each["training"], each["testing"]) for each in facts],
    )


def own_table(
    architectures: Sequence[Architecture], num_classes: int, image_size: int, device: torch.device
) -> DataFrame:
    """Measure networks as they were trained here, the first being what to compare with."""
    ours = [measure_memory(a, num_classes, image_size, device) for a in architectures]
    title = f"Peak memory in MiB, {image_size} pixels, batches of {BATCH_SIZE}"
    return memory_table(title, architectures, ours, how(device))


def how(device: torch.device) -> str:
    """Return a description of what is measured on the device."""
    if device.type == "cuda":
        return f"{ALLOCATED}; {torch.cuda.get_device_name(device)}"
    return TRACED


def memory_table(
    title: str,
    architectures: Sequence[Architecture],
    ours: Sequence[Memory],
    measured: str,
    paper: Sequence[tuple[int, int]] | None = None,
) -> DataFrame:
    """Return a row a network, as in memory.csv: MiB, the paper's too, and ratios over the first."""
    names = DataFrame({"table": title, "architecture": list(map(str, architectures))})
    printed = DataFrame(paper or [], index=names.index, columns=PAPER, dtype="Int64")
    sizes = (DataFrame(ours) / MIB).set_axis(OURS, axis=1)
    ratios = (sizes[OURS[:2]] / sizes[OURS[:2]].iloc[0]).set_axis(RATIOS, axis=1)
    return pd.concat([names, printed, sizes, ratios], axis=1).assign(measured=measured)


def rich_table(table: DataFrame) -> RenderableType:
    """Return the table for the terminal, with what is measured."""
    in_paper = table[PAPER].notna().all(axis=None)
    shown = terminal_table(table["table"].iloc[0], padding=(0, 1))
    shown.add_column("\n")
    headings = ["training\npaper", "training\nours", "testing\npaper", "testing\nours"]
    for heading in headings if in_paper else headings[1::2]:
        shown.add_column(heading, justify="right")
    shown.add_column("kept for\nbackward", justify="right")
    columns = [PAPER[0], OURS[0], PAPER[1], *OURS[1:]] if in_paper else OURS
    figures = table[columns].astype(float)
    for row, (name, values) in enumerate(
        zip(table["architecture"], figures.to_numpy(), strict=True)
    ):
        shown.add_row(name, *(f"{value:,.0f}" for value in values))
        if row > 0:
            ratios = values / figures.to_numpy()[0]
            over = f"  over {table['architecture'].iloc[0]}"
            shown.add_row(over, *(f"{ratio:.3f}" for ratio in ratios), style="bold")
    return Group(shown, Text(f"ours: {table['measured'].iloc[0]}"))


def as_csv(tables: Sequence[DataFrame]) -> str:
    """Return the tables as one CSV, in MiB."""
    whole = pd.concat(tables)
    written = {name: whole[name].map("{:.1f}".format) for name in OURS}
    written |= {name: whole[name].map("{:.4f}".format) for name in RATIOS}
    return csv_of(whole.assign(**written))
