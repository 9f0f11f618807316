"""The training step of AFI over that of the plain ResNet, and what the operators buy of it.

    python -m benchmarks.afi_step                       a GPU, eager and as a CUDA graph; or the CPU
    python -m benchmarks.afi_step --threads 1 --threads 2 --batch 12 --batch 128 --rounds 10

Forward and backward pass and fused SGD on one batch that lies on the device, channels last. All
networks of a depth train in one process, a step of each after the other; `ratio` is the median
over the rounds of a network's time over the plain one's in the same round. `without` names the
operators of `afi_search.nn.ops` in whose place plain torch runs, as it does on a CPU: AFI's sums
(join), its scores (weigh) or batch norms (normalise). On one thread of a CPU it is CPU time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from afi_search.capture import captured
from afi_search.nn import build
from afi_search.nn.ops.common import PARTS, plain
from afi_search.space import Architecture
from afi_search.train import keep_freed_memory
from benchmarks.literal import Literal
from benchmarks.rounds import against, best_device, facts, in_turn, publish, write

CLASSES, SIZE = 100, 32
NETWORKS = {
    "plain": "{backbone}",
    "literal": "{backbone}({width})",
    "block scorer": "{backbone}({width})",
    "stage scorer": "{backbone}({width}-shared)",
}
WITHOUT: dict[str, list[tuple[str, ...]]] = {
    "cpu": [()],
    "cuda": [(), *((part,) for part in PARTS), PARTS],
}
"""The parts that run in plain torch."""
WAYS = {"cpu": ["eager"], "cuda": ["eager", "graph"]}


def stepper(
    name: str,
    depth: int,
    batch: int,
    precision: str,
    way: str,
    device: torch.device,
    width: str = "base-r4",
) -> Callable[[], object]:
    """Return a function that makes one training step of a network."""
    torch.manual_seed(0)
    text = NETWORKS[name].format(backbone=f"resnet{depth}", width=width)
    model = build(Architecture.parse(text), num_classes=CLASSES, image_size=SIZE)
    if name == "literal":
        model = Literal(model)
    model = model.to(device).to(memory_format=torch.channels_last)
    rate = torch.tensor(0.01, device=device)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, fused=True)
    images = torch.randn(batch, 3, SIZE, SIZE, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % CLASSES
    step = partial(training_step, model, optimiser, precision == "bf16")
    if way == "eager":
        return partial(step, images, labels)
    step(images, labels)
    momentum = [state["momentum_buffer"] for state in optimiser.state.values()]
    changed = [*model.parameters(), *model.buffers(), *momentum]
    return partial(captured(step, (images, labels), changed), images, labels)


def stripped(step: Callable[[], object], without: Sequence[str]) -> Callable[[], object]:
    """Return the step, or the step without the operators of those parts."""

    def run() -> None:
        with plain(*without):
            step()

    return run if without else step


def training_step(
    model: nn.Module, optimiser: torch.optim.SGD, narrow: bool, images: Tensor, labels: Tensor
) -> None:
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=narrow):
        logits = model(images)
    torch.autograd.backward(F.cross_entropy(logits.float(), labels))
    optimiser.step()


def main(
    depth: Annotated[list[int] | None, typer.Option(help="32 and 110 where none is given.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="CPU threads; torch's number.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32 where none is given.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Images a step; 128.")] = None,
    width: Annotated[list[str] | None, typer.Option(help="AFI's choice in a stage.")] = None,
    rounds: Annotated[int, typer.Option(help="Steps of each network.", min=2)] = 10,
) -> None:
    """Time every network and write results/afi_step.csv."""
    keep_freed_memory()
    device = best_device()
    cases = [("plain", ()), ("literal", ())]
    cases += product(("block scorer", "stage scorer"), WITHOUT[device.type])
    rows: list[dict[str, object]] = []
    for number, numbers, way, layers, images, choice in product(
        threads or [torch.get_num_threads()],
        precision or ["fp32"],
        WAYS[device.type],
        depth or [32, 110],
        batch or [128],
        width or ["base-r4"],
    ):
        torch.set_num_threads(number)
        steps = {
            f"{name}{without}": stripped(
                stepper(name, layers, images, numbers, way, device, choice), without
            )
            for name, without in cases
        }
        seconds = in_turn(steps, rounds, device)
        rows += [
            {
                "depth": layers,
                "network": name,
                "without": " and ".join(without),
                "width": choice,
                "way": way,
                "precision": numbers,
                **against(seconds[f"{name}{without}"], seconds["plain()"]),
                "batch": images,
                "rounds": rounds,
                **facts(device),
            }
            for name, without in cases
        ]
        write("afi_step", rows)
    columns = ["depth", "width", "network", "without", "way", "precision", "threads", "batch"]
    publish("afi_step", rows, [*columns, "ratio", "ratio_quarter", "ratio_three_quarters"])


if __name__ == "__main__":
    typer.run(main)
