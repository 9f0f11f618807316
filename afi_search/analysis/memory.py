"""Peak memory in training and in inference; the paper's Table 6 measures it for ResNet-50.

Measured on a GPU by its allocator, or on the `meta` device by the bytes of all tensors alive at a
time, which needs no GPU, memory or time, and leaves out what is not a tensor: workspaces of the
libraries, the allocator's stock, the GPU's context. Both train with SGD with momentum in float32,
and count weights, gradients and momentum too.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from pandas import DataFrame
from rich.console import Group, RenderableType
from rich.text import Text
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from afi_search.cost.counts import kept_bytes, storage_id
from afi_search.files import csv_of
from afi_search.nn import build
from afi_search.report.table import TerminalTable
from afi_search.space import Architecture
from afi_search.study.paper import paper_data

MIB = 2**20
BATCH_SIZE = 64
PAPER = ["paper_training_mib", "paper_testing_mib"]
OURS = ["training_mib", "testing_mib", "kept_for_backward_mib"]
RATIOS = ["training_ratio", "testing_ratio"]


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a training step and of an inference, and kept for the backward pass."""

    training: int
    testing: int
    kept: int


MakeModel = Callable[[], nn.Module]


def traced(make: MakeModel, image_size: int, batch_size: int) -> Memory:
    """Trace a training step and an inference on the `meta` device, torch's default for `make`."""
    with torch.device("meta"):
        run = _Run(make, image_size, batch_size)

    def peak(step: Callable[[], None]) -> int:
        with LiveBytes(run.tensors()) as live:
            step()
        return live.peak

    return _measured(run, peak)


def allocated(make: MakeModel, image_size: int, batch_size: int, device: torch.device) -> Memory:
    """Measure a training step and an inference on a GPU by its allocator."""
    others = torch.cuda.memory_allocated(device)
    with device:
        run = _Run(make, image_size, batch_size)

    def peak(step: Callable[[], None]) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - others

    return _measured(run, peak)


def _measured(run: _Run, peak: Callable[[Callable[[], None]], int]) -> Memory:
    run.train()  # makes the momentum, and lets the libraries settle
    training = peak(run.train)
    with kept_bytes(run.model) as kept:
        run.loss()
    run.optimiser.state.clear()  # an inference has no momentum
    run.infer()
    return Memory(training=training, testing=peak(run.infer), kept=kept.total())


class _Run:
    """A network with a batch of images, channels last, to be trained and evaluated."""

    def __init__(self, make: MakeModel, image_size: int, batch_size: int) -> None:
        images = torch.empty(batch_size, 3, image_size, image_size).uniform_()
        self.model = make().to(memory_format=torch.channels_last)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.zeros(batch_size, dtype=torch.int64)
        parameters = self.model.parameters()
        self.optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-4)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that are alive between steps."""
        momentum = [state["momentum_buffer"] for state in self.optimiser.state.values()]
        weights = [*self.model.parameters(), *self.model.buffers()]
        return [*weights, *momentum, self.images, self.labels]

    def loss(self) -> Tensor:
        return F.cross_entropy(self.model.train()(self.images), self.labels)

    def train(self) -> None:
        torch.autograd.backward(self.loss())
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def infer(self) -> None:
        with torch.no_grad():
            self.model.eval()(self.images)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all live tensors within the context, shared memory once.

    `now` are alive, `peak` were at a time. What an operation uses and frees within itself is not
    seen.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._alive: set[int] = set()
        self._hold(tensors)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._hold(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def _hold(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage_id(storage) not in self._alive:
                self._alive.add(storage_id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, storage_id(storage), storage.nbytes())
        self.peak = max(self.peak, self.now)

    def _free(self, storage: int, size: int) -> None:
        self._alive.discard(storage)
        self.now -= size


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
    held = "weights, gradients and momentum"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return f"peak of the GPU's allocator, {held} included; float32; {name}"
    return f"all tensors alive at a time, {held} among them; float32"


def memory_table(
    title: str,
    networks: Sequence[object],
    ours: Sequence[Memory],
    measured: str,
    paper: Sequence[tuple[int, int]] | None = None,
) -> DataFrame:
    """Return a row a network, as in memory.csv: MiB, the paper's too, and ratios over the first."""
    names = DataFrame({"table": title, "architecture": list(map(str, networks))})
    printed = DataFrame(paper or [], index=names.index, columns=PAPER, dtype="Int64")
    sizes = (DataFrame(ours) / MIB).set_axis(OURS, axis=1)
    ratios = (sizes[OURS[:2]] / sizes[OURS[:2]].iloc[0]).set_axis(RATIOS, axis=1)
    return pd.concat([names, printed, sizes, ratios], axis=1).assign(measured=measured)


def rich_table(table: DataFrame) -> RenderableType:
    """Return the table for the terminal, with what is measured."""
    in_paper = table[PAPER].notna().all(axis=None)
    shown = TerminalTable(table["table"].iloc[0])
    shown.add_names("\n")
    headings = ["training\npaper", "training\nours", "testing\npaper", "testing\nours"]
    for heading in headings if in_paper else headings[1::2]:
        shown.add_figures(heading)
    shown.add_figures("kept for\nbackward")
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
    whole = pd.concat(tables)
    written = {name: whole[name].map("{:.1f}".format) for name in OURS}
    written |= {name: whole[name].map("{:.4f}".format) for name in RATIOS}
    return csv_of(whole.assign(**written))
