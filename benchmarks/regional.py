"""Whether compiling a network's blocks by torch.compile pays within a trial.

    python -m benchmarks.regional
    python -m benchmarks.regional --threads 1 --rounds 8

Every block of a plain network is compiled, so that alike blocks share what was compiled; AFI's own
functions stay as they are. Cold is with an empty cache, warm with what a former trial left there,
as the second trial of a worker on the same machine finds it. `epochs to pay` is how many epochs of
50,000 images make up for the warm compilation, where a step gains at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from statistics import median
from typing import Annotated

import torch
import typer

from afi_search.nn.stage import Block
from afi_search.train import keep_freed_memory
from benchmarks.afi_step import stepper
from benchmarks.rounds import best_device, facts, in_turn, publish

BATCH, IMAGES, WARM_UP = 128, 50_000, 2


def measure(depth: int, precision: str, rounds: int) -> dict[str, float]:
    """Return seconds to compile and of a step, eager and compiled, in turn."""
    device = best_device()
    eager, compiled = (stepper("plain", depth, BATCH, precision, "eager", device) for _ in range(2))
    blocks = [part for part in network_of(compiled).modules() if isinstance(part, Block)]
    for block in blocks:
        block.compile()
    started = time.perf_counter()
    for _ in range(WARM_UP):
        compiled()
    compiling = time.perf_counter() - started
    seconds = in_turn({"eager": eager, "compiled": compiled}, rounds, device)
    return {"compiling": compiling, **{name: median(of) for name, of in seconds.items()}}


def network_of(step: object) -> torch.nn.Module:
    """Return the network that a stepper trains."""
    assert isinstance(step, partial)
    network: torch.nn.Module = step.args[0]
    return network


def apart(depth: int, precision: str, rounds: int, threads: int, cache: str) -> dict[str, float]:
    """Measure in a process of its own, whose compiler keeps its cache in that folder."""
    settings = ["--depth", depth, "--precision", precision, "--rounds", rounds]
    command = [sys.executable, "-m", "benchmarks.regional", "--one", *map(str, settings)]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
    done = subprocess.run(
        [*command, "--threads", str(threads)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main(
    depth: Annotated[int, typer.Option(help="Of the ResNet.")] = 32,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    rounds: Annotated[int, typer.Option(help="Steps of each.", min=2)] = 8,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's number.")] = 0,
    one: Annotated[bool, typer.Option("--one", hidden=True)] = False,
) -> None:
    """Compile cold and warm, time both ways, and write results/regional.csv."""
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    keep_freed_memory()
    if one:
        print(json.dumps(measure(depth, precision, rounds)))
        return
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (apart(depth, precision, rounds, threads, cache) for _ in range(2))
    gain = (warm["eager"] - warm["compiled"]) * IMAGES / BATCH
    row: dict[str, object] = {
        "network": f"resnet{depth}",
        "precision": precision,
        "cold_s": cold["compiling"],
        "warm_s": warm["compiling"],
        "eager_step_s": warm["eager"],
        "compiled_step_s": warm["compiled"],
        "ratio": warm["compiled"] / warm["eager"],
        "epochs_to_pay": warm["compiling"] / gain if gain > 0 else "never",
        "batch": BATCH,
        "rounds": rounds,
        **facts(best_device()),
    }
    shown = [*("network", "cold_s", "warm_s", "eager_step_s", "compiled_step_s", "ratio")]
    publish("regional", [row], [*shown, "epochs_to_pay", "threads"])


if __name__ == "__main__":
    typer.run(main)
