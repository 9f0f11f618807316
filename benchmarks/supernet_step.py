"""The training step of an architecture in its supernet over that of the network of its own.

    python -m benchmarks.supernet_step --threads 1

Forward and backward pass and fused SGD on one batch that lies on the device, channels last; the
supernet holds `off`, `base-r4`, `B-r4` and `B-r4-se` in each stage. Both train in one process, a
step of each after the other; `ratio` is the median over the rounds of the supernet's time over the
other's in the same round.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
import typer
from torch import nn

from afi_search.nn import Supernet
from afi_search.space import Space, SpaceFile
from afi_search.train import keep_freed_memory
from benchmarks.afi_step import training_step
from benchmarks.rounds import against, best_device, facts, in_turn, publish

CHOICES = ("off", "base-r4", "B-r4", "B-r4-se")


def main(
    networks: Annotated[
        list[str] | None,
        typer.Option("--network", help="BACKBONE:PIXELS; resnet20:16 and resnet32:32 if none."),
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    rounds: Annotated[int, typer.Option(help="Steps of each network.", min=2)] = 10,
) -> None:
    """Time every choice, in all stages, and write results/supernet_step.csv."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    device = best_device()
    rows: list[dict[str, object]] = []
    for backbone, pixels in (one.split(":") for one in networks or ["resnet20:16", "resnet32:32"]):
        stages = {"all": {"choice": CHOICES}}
        file = SpaceFile.model_validate({"backbone": backbone, "stages": stages})
        for choice in CHOICES:
            net = Supernet(Space(file), num_classes=100, image_size=int(pixels))
            net.set_active(f"{backbone}({choice})")
            pair: dict[str, nn.Module] = {"supernet": net, "alone": net.extract()}
            images = torch.randn(batch, 3, int(pixels), int(pixels), device=device)
            images = images.to(memory_format=torch.channels_last)
            labels = torch.arange(batch, device=device) % 100
            steps = {}
            for name, model in pair.items():
                model = model.to(device).to(memory_format=torch.channels_last).train()
                used = [p for p in model.parameters() if p.requires_grad]
                optimiser = torch.optim.SGD(used, lr=0.01, momentum=0.9, fused=True)
                for parameter in used:  # all get a momentum, as in the trainer
                    parameter.grad = torch.zeros_like(parameter)
                optimiser.step()
                steps[name] = partial(training_step, model, optimiser, False, images, labels)
            seconds = in_turn(steps, rounds, device)
            rows.append(
                {
                    "network": f"{backbone}({choice})",
                    "pixels": int(pixels),
                    "batch": batch,
                    "rounds": rounds,
                    **against(seconds["supernet"], seconds["alone"]),
                    **facts(device),
                }
            )
    columns = ["network", "pixels", "threads", "median_s", "ratio"]
    publish("supernet_step", rows, [*columns, "ratio_quarter", "ratio_three_quarters"])


if __name__ == "__main__":
    typer.run(main)
