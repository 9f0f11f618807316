"""Everything about speed that needs a GPU, in one go: python -m benchmarks.gpu

The tests that skip without CUDA (captured steps against eager ones, Triton's kernels against the
CPU's sums), then afi_step, trial_throughput, epoch, packing, first_step, regional, memory and
imagenet, each in a process of its own; their CSVs are in results/. About half an hour. `--recipes`
adds recipe_rank, which takes hours.

Not measured yet, as no GPU was at hand when this was written: every figure on CUDA; whether the
Triton kernels are faster than the CPU's way of writing them (they compile for an H100, and the
interpreter runs them); the gain of CUDA graphs; trials that share a GPU, with or without MPS; the
time from a trial's start to its first step on CUDA; the agreement of the short recipe with the long
one at full size.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Annotated

import torch
import typer

from benchmarks.rounds import console

TESTS = ["pytest", "-q", "-n", "0", "tests/nn/test_kernels.py", "tests/train/test_capture.py"]
STEPS = [
    ["benchmarks.afi_step", "--precision", "fp32", "--precision", "bf16"],
    ["benchmarks.trial_throughput"],
    ["benchmarks.epoch"],
    ["benchmarks.packing"],
    ["benchmarks.first_step"],
    ["benchmarks.regional"],
    ["benchmarks.memory"],
    ["benchmarks.imagenet"],
]
RECIPES = ["benchmarks.recipe_rank", "spaces/resnet.yaml", "--architectures", "24"]


def main(
    recipes: Annotated[bool, typer.Option(help="Also compare recipes; takes hours.")] = False,
) -> None:
    """Run all, whatever fails on the way, and exit with 1 if anything did."""
    if not torch.cuda.is_available():
        console.print("benchmarks.gpu needs a CUDA device; this machine has none.")
        return
    failed = []
    for command in [TESTS, *STEPS, *([RECIPES] if recipes else [])]:
        console.rule(" ".join(command))
        started = time.perf_counter()
        if subprocess.run([sys.executable, "-m", *command], check=False).returncode:
            failed.append(command[0])
        console.print(f"{time.perf_counter() - started:.0f} s")
    if failed:
        console.print(f"Failed: {', '.join(failed)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
