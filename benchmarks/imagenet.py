"""Speed of the ImageNet training step: AFI-ResNet-50 beside torchvision's ResNet-50.

    python -m benchmarks.imagenet                   the GPU, or the CPU where there is none
    python -m benchmarks.imagenet --batch 8 --crop 96 --rounds 10

All contenders train in one process and in turn, a step of each after the other, so that whatever
else the machine does falls on all of them alike. Each step is what a promotion does: images are
normalised, forward and backward under autocast, SGD. Images lie on the device; loading is no part
of it. The figure is the median of the rounds; the ratio is the median of the ratios of a round.
With one CPU thread that thread's own time is what counts, so that a busy machine spoils it less.

A second table tells where a step's time goes, as torch.profiler sees it: in which kind of operation
a network that has fewer MACs than the plain one gains, and in which it loses again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Annotated

import pandas as pd
import torch
import torchvision
import typer
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile

from afi_search.cost import measure
from afi_search.data.image_loader import ImageSource
from afi_search.data.source import Batch, BatchSharding
from afi_search.device import describe_device
from afi_search.nn import build
from afi_search.space import Architecture
from afi_search.space.fields import PrecisionSetting
from afi_search.space.recipe import ImageNetRecipe
from afi_search.train import Trainer
from benchmarks.rounds import RESULTS, console

PEER = "torchvision resnet50"
OURS = ("resnet50", "resnet50(base-r4)", "resnet50(base-r4-shared)", "resnet50(B-r16)")
CLASSES, IMAGENET_SIZE = 1000, 224
WARM_UP, PROFILED = 2, 5
KINDS = {
    "conv": ("conv",),
    "norm": ("batch_norm",),
    "matmul": ("mm", "linear"),
    "activation": ("relu", "threshold", "clamp", "hardtanh"),
    "elementwise": ("add", "mul", "lerp", "cat", "sum", "mean", "div", "copy", "fill"),
}
"""An operation is of the first kind of which a word is in its name; what is left is the rest."""
REST = "rest"


class OneBatch:
    """A loader whose images lie on the device already."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def train(self, epoch: int) -> Iterator[Batch]:
        yield self.batch

    def validation(self) -> Iterator[Batch]:
        yield self.batch


def contender(name: str) -> nn.Module:
    """Return torchvision's network, or one of ours."""
    torch.manual_seed(0)
    if name == PEER:
        return torchvision.models.resnet50(weights=None, num_classes=CLASSES)
    architecture = Architecture.parse(name)
    return build(architecture, num_classes=CLASSES, image_size=IMAGENET_SIZE)


def stepper(
    name: str,
    batch: int,
    crop: int,
    precision: PrecisionSetting,
    device: torch.device,
) -> Callable[[], None]:
    """Return a function that makes one training step and waits for it."""
    recipe = ImageNetRecipe(batch_size=batch, train_crop=crop, precision=precision)
    pixels = torch.randint(0, 256, (batch, 3, crop, crop), dtype=torch.uint8, device=device)
    loader = OneBatch((pixels, torch.arange(batch, device=device) % CLASSES))
    alone = BatchSharding(rank=0, world=1, accumulation_steps=1, per_device_batch=batch)
    source = ImageSource(loader, recipe, alone, images=batch, num_classes=CLASSES, device=device)
    trainer = Trainer(contender(name), recipe, source, identity={}, device=device)
    trainer.model.train()

    def step() -> None:
        trainer.step(0, [loader.batch])
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def main(
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    crop: Annotated[int, typer.Option(help="Height and width of the images.")] = 224,
    rounds: Annotated[int, typer.Option(help="Steps of each contender.", min=2)] = 20,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's number.")] = 0,
    results: Annotated[Path, typer.Option(help="The folder of the CSV.")] = RESULTS,
) -> None:
    """Time every contender and write results/imagenet.csv."""
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = process_time if device.type == "cpu" and torch.get_num_threads() == 1 else perf_counter
    names = (PEER, *OURS)
    steps = {name: stepper(name, batch, crop, precision, device) for name in names}  # type: ignore[arg-type]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP + rounds):
        for name, step in steps.items():
            started = clock()
            step()
            if turn >= WARM_UP:
                seconds[name].append(clock() - started)
    table = pd.DataFrame([row(name, seconds[name], seconds[PEER], batch) for name in names]).assign(
        batch=batch,
        crop=crop,
        precision=precision,
        rounds=rounds,
        threads=torch.get_num_threads(),
        device=describe_device(),
    )
    kinds = where_time_goes(steps, device)
    results.mkdir(parents=True, exist_ok=True)
    written = table.merge(kinds.set_index("network").add_prefix("ms_"), on="network")
    written.to_csv(results / "imagenet.csv", index=False, lineterminator="\n")
    console.print(shown(table))
    console.print(shown_kinds(kinds))
    console.print(f"Written: {results / 'imagenet.csv'}", soft_wrap=True)


def where_time_goes(steps: Mapping[str, Callable[[], None]], device: torch.device) -> pd.DataFrame:
    """Return each contender's milliseconds a step by the kind of operation, the least of a few."""
    rounds = [
        {"network": name, **profiled(step, device)}
        for _ in range(PROFILED)
        for name, step in steps.items()
    ]
    return pd.DataFrame(rounds).groupby("network", sort=False).min().reset_index()


def profiled(step: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Return the milliseconds of one step by the kind of operation."""
    on_gpu = device.type == "cuda"
    spent = dict.fromkeys([*KINDS, REST], 0.0)
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        step()
    for operation in seen.key_averages():
        micros = operation.self_device_time_total if on_gpu else operation.self_cpu_time_total
        spent[kind(operation.key)] += micros / 1000
    return spent


def kind(operation: str) -> str:
    """Return what kind of operation it is, by its name."""
    fitting = (kind for kind, words in KINDS.items() if any(word in operation for word in words))
    return next(fitting, REST)


def row(name: str, own: list[float], peer: list[float], batch: int) -> dict[str, object]:
    """Return a contender's figures; `ratio` is its images/s over torchvision's."""
    ratios = [theirs / mine for mine, theirs in zip(own, peer, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    text = "resnet50" if name == PEER else name
    cost = measure(Architecture.parse(text), num_classes=CLASSES, image_size=IMAGENET_SIZE)
    return {
        "network": name,
        "macs": cost.macs,
        "images_per_second": batch / median(own),
        "ratio": median(ratios),
        "ratio_quarter": low,
        "ratio_three_quarters": high,
    }


def shown_kinds(table: pd.DataFrame) -> Table:
    """Return the milliseconds of each kind of operation for the terminal."""
    screen = Table(
        title="Where a step's time goes, milliseconds",
        title_justify="left",
        caption=f"torch.profiler: time of the operations themselves, the least of {PROFILED} steps",
        caption_justify="left",
    )
    screen.add_column("network")
    for heading in table.columns[1:]:
        screen.add_column(heading, justify="right")
    for each in table.to_dict("records"):
        name, *milliseconds = each.values()
        screen.add_row(name, *(f"{value:.0f}" for value in milliseconds))
    return screen


def shown(table: pd.DataFrame) -> Table:
    """Return the rows for the terminal."""
    facts = table.iloc[0]
    screen = Table(
        title=f"Training step, batch {facts['batch']}, {facts['crop']} pixels, "
        f"{facts['precision']}, {facts['device']}, CPU threads: {facts['threads']}",
        title_justify="left",
        caption="MACs: multiply-accumulates of conv and linear layers and AFI scoring, per image "
        "of 224 pixels; ratio: images/s over torchvision's, median (quartiles) of the rounds",
        caption_justify="left",
    )
    screen.add_column("network")
    for heading in ("MACs, G", "images/s", "ratio"):
        screen.add_column(heading, justify="right")
    for each in table.to_dict("records"):
        screen.add_row(
            each["network"],
            f"{each['macs'] / 1e9:.2f}",
            f"{each['images_per_second']:.1f}",
            f"{each['ratio']:.3f} ({each['ratio_quarter']:.3f} to "
            f"{each['ratio_three_quarters']:.3f})",
        )
    return screen


if __name__ == "__main__":
    typer.run(main)
