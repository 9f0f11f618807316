"""Trials that share a GPU: 1, 2, 3 and 4 at a time, with and without NVIDIA's MPS.

    python -m benchmarks.packing

Each trial is a process, as it is in a search. All of a line begin together and train the same
number of epochs; the figure is the epochs a second of all of them, and over that of one alone.
Needs a CUDA device, and `nvidia-cuda-mps-control` for the lines with MPS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

import torch
import torch.multiprocessing as mp
import typer

from afi_search.data import Split, dataset_spec
from afi_search.nn import build
from afi_search.space import Architecture, Recipe
from afi_search.train import seed_everything, trial_trainer
from benchmarks.epoch import CLASSES, DATA, EPOCH, SIZE, made_up
from benchmarks.rounds import best_device, console, facts, publish

MPS = "nvidia-cuda-mps-control"
SHARED = (1, 2, 3, 4)


def trial(network: str, batch: int, epochs: int, start: mp.Barrier, seconds: mp.Queue) -> None:
    """Train in a process of its own; the clock begins when all have had their first epoch."""
    seed_everything(0)
    model = build(Architecture.parse(network), num_classes=CLASSES, image_size=SIZE)
    data = Split(dataset_spec(DATA), made_up(EPOCH), made_up(5000))
    recipe = Recipe(epochs=epochs + 1, batch_size=batch)
    trainer = trial_trainer(model, recipe, data, seed=0, device=torch.device("cuda"))
    trainer.run_epoch()
    start.wait()
    started = time.perf_counter()
    while not trainer.done:
        trainer.run_epoch()
    seconds.put(time.perf_counter() - started)


@contextmanager
def mps() -> Iterator[None]:
    """Run NVIDIA's multi-process service of our own for what is started within."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ.update(own)
        subprocess.run([MPS, "-d"], check=True)
        try:
            yield
        finally:
            subprocess.run([MPS], input="quit\n", text=True, check=True)
            for name in own:
                del os.environ[name]


def together(count: int, network: str, batch: int, epochs: int) -> float:
    """Return the epochs a second of `count` trials at a time."""
    context = mp.get_context("spawn")
    start, seconds = context.Barrier(count), context.Queue()
    arguments = (network, batch, epochs, start, seconds)
    trials = [context.Process(target=trial, args=arguments) for _ in range(count)]
    for process in trials:
        process.start()
    for process in trials:
        process.join()
    if any(process.exitcode for process in trials):
        raise RuntimeError(f"{count} trials at a time: one of them failed, see above")
    return count * epochs / max(seconds.get() for _ in trials)


def main(
    network: Annotated[str, typer.Option(help="The architecture.")] = "resnet32(base-r4)",
    batch: Annotated[int, typer.Option(help="Images a step.")] = 512,
    epochs: Annotated[int, typer.Option(help="Of each trial.")] = 5,
) -> None:
    """Time every line and write results/packing.csv."""
    if not torch.cuda.is_available():
        console.print("benchmarks.packing needs a CUDA device; this machine has none.")
        return
    ways = {"no": nullcontext, "yes": mps} if shutil.which(MPS) else {"no": nullcontext}
    rows: list[dict[str, object]] = []
    for shared, way in ways.items():
        with way():
            for count in SHARED:
                speed = together(count, network, batch, epochs)
                rows.append({"mps": shared, "trials": count, "epochs_per_second": speed})
    alone = rows[0]["epochs_per_second"]
    fixed = {"network": network, "batch": batch, "epochs": epochs, **facts(best_device())}
    rows = [{**row, "over_one": row["epochs_per_second"] / alone, **fixed} for row in rows]  # type: ignore[operator]
    publish("packing", rows, ["mps", "trials", "epochs_per_second", "over_one"])


if __name__ == "__main__":
    typer.run(main)
