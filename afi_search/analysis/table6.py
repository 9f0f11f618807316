"""The paper's Table 6, peak memory of ResNet-50 with and without AFI, with ours beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from afi_search.analysis.memory import MIB, Memory, allocated, traced
from afi_search.nn import build
from afi_search.space import Architecture
from afi_search.study.paper import paper_data

BATCH_SIZE = 64
TRACED = "all tensors alive at a time, weights, gradients and momentum among them; float32"
ALLOCATED = "peak of the GPU's allocator, weights, gradients and momentum included; float32"
COLUMNS = (
    "table",
    "architecture",
    "paper_training_mib",
    "paper_testing_mib",
    "training_mib",
    "testing_mib",
    "kept_for_backward_mib",
    "training_ratio",
    "testing_ratio",
    "measured",
)


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        architecture: of the network.
        ours: measured here, bytes.
        paper: MiB in training and in testing, where the paper has it.
    """

    architecture: Architecture
    ours: Memory
    paper: tuple[int, int] | None = None


@dataclass(frozen=True)
class MemoryTable:
    """Networks, the first of which the others are compared with.

    Attributes:
        title: above the table.
        rows: at least one.
        measured: description of the measurement.
    """

    title: str
    rows: Sequence[Row]
    measured: str


def measure_memory(
    architecture: Architecture, num_classes: int, image_size: int, device: torch.device
) -> Memory:
    """Measure by the allocator where the device is a GPU, otherwise by tracing."""
    make = partial(build, architecture, num_classes=num_classes, image_size=image_size)
    if device.type == "cuda":
        return allocated(make, image_size, BATCH_SIZE, device)
    return traced(make, image_size, BATCH_SIZE)


def paper_table6(device: torch.device) -> MemoryTable:
    """Measure the networks of the paper's Table 6, at 224 pixels and 1,000 classes."""
    rows = []
    for facts in paper_data()["peak_memory_mib"]["results"]:
        architecture = Architecture.parse(facts["architecture"])
        ours = measure_memory(architecture, 1000, 224, device)
        rows.append(Row(architecture, ours, (facts["training"], facts["testing"])))
    title = f"Table 6: peak memory in MiB, ImageNet, batches of {BATCH_SIZE}"
    return MemoryTable(title, rows, how(device))


def own_table(
    architectures: Sequence[Architecture], num_classes: int, image_size: int, device: torch.device
) -> MemoryTable:
    """Measure networks as they were trained here, the first being what to compare with."""
    rows = [Row(a, measure_memory(a, num_classes, image_size, device)) for a in architectures]
    title = f"Peak memory in MiB, {image_size} pixels, batches of {BATCH_SIZE}"
    return MemoryTable(title, rows, how(device))


def how(device: torch.device) -> str:
    """Return a description of what is measured on the device."""
    if device.type == "cuda":
        return f"{ALLOCATED}; {torch.cuda.get_device_name(device)}"
    return TRACED


def rich_table(table: MemoryTable) -> RenderableType:
    """Return the table for the terminal, with what is measured."""
    in_paper = any(row.paper for row in table.rows)
    shown = Table(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    shown.add_column("\n")
    columns = ["training\npaper", "training\nours", "testing\npaper", "testing\nours"]
    for column in columns if in_paper else columns[1::2]:
        shown.add_column(column, justify="right")
    shown.add_column("kept for\nbackward", justify="right")
    base = table.rows[0]
    for row in table.rows:
        shown.add_row(str(row.architecture), *(f"{value:,.0f}" for value in _figures(row)))
        if row is not base:
            ratios = (f"{v / b:.3f}" for v, b in zip(_figures(row), _figures(base), strict=True))
            shown.add_row(f"  over {base.architecture}", *ratios, style="bold")
    return Group(shown, Text(f"ours: {table.measured}"))


def as_csv(tables: Sequence[MemoryTable]) -> str:
    """Return the tables as CSV, in MiB."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for table in tables:
        base = table.rows[0].ours
        for row in table.rows:
            ours = row.ours
            writer.writerow(
                [
                    table.title,
                    str(row.architecture),
                    *(row.paper or ("", "")),
                    *(f"{size / MIB:.1f}" for size in (ours.training, ours.testing, ours.kept)),
                    f"{ours.training / base.training:.4f}",
                    f"{ours.testing / base.testing:.4f}",
                    table.measured,
                ]
            )
    return stream.getvalue()


def _figures(row: Row) -> list[float]:
    """Return a row's figures in MiB, in the order of the columns."""
    ours = [row.ours.training / MIB, row.ours.testing / MIB]
    if row.paper is not None:
        ours = [row.paper[0], ours[0], row.paper[1], ours[1]]
    return [*ours, row.ours.kept / MIB]
