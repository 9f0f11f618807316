"""Seconds per 50,000 images beside the least that the device's memory allows.

    python -m benchmarks.epoch                                  a GPU
    python -m benchmarks.epoch --images 1024 --rounds 3         a CPU, scaled up to 50,000

The floor: each output element of a convolution passes through memory 14 times in a training step
if nothing is fused beyond the activation: forward the convolution writes it, batch norm reads it
twice and writes it, the next convolution reads it; backward two convolutions read its gradient and
one its value, one writes a gradient, and batch norm with its activation reads value and gradient
twice and writes once. That many bytes over the bandwidth that a copy reaches on this device.
AFI's own reading is not in the floor.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from torch import Tensor

from afi_search.cost import measure
from afi_search.data import ImageSet, Split, dataset_spec
from afi_search.nn import build
from afi_search.space import Architecture, Recipe
from afi_search.train import keep_freed_memory, seed_everything, trial_trainer
from benchmarks.rounds import against, best_device, facts, in_turn, publish

NETWORKS = [
    "resnet32",
    "resnet32(base-r4)",
    "resnet110",
    "resnet110(base-r4)",
    "mobilenetv2",
    "resnext29",
]
DATA, CLASSES, SIZE = "cifar100", 100, 32
EPOCH, PASSES = 50_000, 14


def bandwidth(device: torch.device) -> float:
    """Return the bytes a second that a copy of 256 MiB reads and writes, at its best."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    seconds = in_turn({"copy": lambda: target.copy_(source)}, 10, device)["copy"]
    return 2 * source.numel() * source.element_size() / min(seconds)


def floor_seconds(architecture: Architecture, bytes_each: int, bytes_per_second: float) -> float:
    """Return the least seconds of an epoch, see above."""
    cost = measure(architecture, num_classes=CLASSES, image_size=SIZE)
    elements = (cost.paper_gflops * 1e9 / 32 - cost.macs) / 2
    return PASSES * elements * bytes_each * EPOCH / bytes_per_second


def made_up(count: int) -> ImageSet:
    """Return images of noise."""
    pixels: Tensor = torch.randint(0, 256, (count, SIZE, SIZE, 3), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % CLASSES)


def main(
    network: Annotated[list[str] | None, typer.Option(help="All where none is given.")] = None,
    images: Annotated[int, typer.Option(help="Trained in an epoch here.")] = EPOCH,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 512,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "bf16",
    rounds: Annotated[int, typer.Option(help="Epochs of each.", min=2)] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's number.")] = 0,
) -> None:
    """Time every network and write results/epoch.csv."""
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    device = best_device()
    moved = bandwidth(device)
    data = Split(dataset_spec(DATA), made_up(images), made_up(100))
    recipe = Recipe.model_validate(
        {"epochs": rounds + 1, "batch_size": batch, "precision": precision}
    )
    trainers = {}
    for text in network or NETWORKS:
        seed_everything(0)
        model = build(Architecture.parse(text), num_classes=CLASSES, image_size=SIZE)
        trainers[text] = trial_trainer(model, recipe, data, seed=0, device=device).run_epoch
    seconds = in_turn(trainers, rounds, device, warm_up=1)
    rows: list[dict[str, object]] = []
    for text, of in seconds.items():
        epoch = against(of, of)["median_s"] * EPOCH / images
        floor = floor_seconds(Architecture.parse(text), 2 if precision == "bf16" else 4, moved)
        rows.append(
            {
                "network": text,
                "seconds_per_50000": epoch,
                "floor_seconds": floor,
                "over_floor": epoch / floor,
                "gigabytes_per_second": moved / 1e9,
                "images": images,
                "batch": batch,
                "precision": precision,
                "rounds": rounds,
                **facts(device),
            }
        )
    columns = ["network", "seconds_per_50000", "floor_seconds", "over_floor", "precision"]
    publish("epoch", rows, columns)


if __name__ == "__main__":
    typer.run(main)
