"""Seconds from a trial's start to its first step, in a worker that trains trial after trial.

    python -m benchmarks.first_step                     a GPU; or the CPU, with torch's threads
    python -m benchmarks.first_step --threads 1

A worker is what a Ray actor runs, here in this process. Its first trial pays for what is made once:
imports, the data's first touch, the native library, the precision that is measured. `begins` is
when the first step begins, `ends` when it has been made, as a CUDA graph too where there is one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Annotated
from unittest.mock import patch

import torch
import typer

from afi_search.data import load, split
from afi_search.data.tensor_source import padded
from afi_search.engine.capacity import Capacity
from afi_search.engine.trial_worker import TrialConfig, TrialWorker
from afi_search.space import Recipe, SpaceFile
from afi_search.train import Trainer
from benchmarks.rounds import best_device, facts, publish

TRIALS = ["resnet32(base-r4)", "resnet32(B-r16)", "resnet32", "resnet32(base-r4-shared)"]


class FirstStepMade(Exception):
    """The trial has come as far as is of interest."""


def main(
    trial: Annotated[list[str] | None, typer.Option(help="An architecture; in order.")] = None,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's number.")] = 0,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or auto: the faster one.")] = "auto",
    data_name: Annotated[str, typer.Option("--data", help="The data set.")] = "cifar100",
) -> None:
    """Time the trials and write results/first_step.csv."""
    device = best_device()
    recipe = Recipe(batch_size=batch, precision=precision)  # type: ignore[arg-type]
    data = padded(split(load(data_name)), recipe.pad)
    worker = TrialWorker.__new__(TrialWorker)
    times: list[float] = []

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    step = Trainer.step

    def timed(trainer: Trainer, number: int, rounds: Sequence[Sequence[torch.Tensor]]) -> None:
        times.append(wait())
        step(trainer, number, rounds)
        times.append(wait())
        raise FirstStepMade

    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, patch.object(Trainer, "step", timed):
        capacity = Capacity(1, threads=threads or torch.get_num_threads(), gpus=0.0)
        common = TrialConfig(SpaceFile(recipe=recipe), folder, capacity)
        for number, architecture in enumerate(trial or TRIALS):
            config = {"number": number, "architecture": architecture, "seed": number}
            started = wait()
            if number:
                worker.reset_config(config)
            else:
                worker.setup(config, common, data)
            worker.step()
            begins, ends = times[-2] - started, times[-1] - started
            facts_of_trial = {"trial": number + 1, "network": architecture}
            rows.append(
                facts_of_trial
                | {"begins_s": begins, "ends_s": ends, "batch": batch, "precision": precision}
                | facts(device)
            )
    publish("first_step", rows, ["trial", "network", "begins_s", "ends_s", "threads"])


if __name__ == "__main__":
    typer.run(main)
