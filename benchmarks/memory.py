"""Peak memory of AFI-ResNet-50 against ResNet-50: the paper's Table 6, and what makes it up.

    python -m benchmarks.memory

On a GPU by torch's allocator, elsewhere by following every tensor of a training step and of an
inference (`afi_search.analysis.memory`), which takes seconds and no memory. Beside our ResNet-50
stands torchvision's, as a check that what AFI is compared with is not wasteful, and beside
AFI-ResNet-50 the same network in plain torch. The speed of these two is measured in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
import torchvision
from rich import box
from rich.table import Table
from torch import Tensor, nn

from afi_search.analysis.memory import MIB, MakeModel, Memory, allocated, how, traced
from afi_search.device import describe_device
from afi_search.nn import build
from afi_search.nn.ops.common import plain as plain_torch
from afi_search.space import Architecture, get_backbone
from afi_search.study.paper import paper_data
from benchmarks.rounds import RESULTS, console

CLASSES, SIZE, BATCH = 1000, 224, 64
STAGE_SIZES = (56, 28, 14, 7)
PLAIN, AFI = "resnet50", "resnet50(base-r4)"
PEER, APART = "torchvision's", f"{AFI} *"
NOTE = "* in plain torch, each operation left to autograd"


@dataclass(frozen=True)
class Line:
    """A network's memory in MiB, here and in the paper."""

    network: str
    training: float
    testing: float
    kept_for_backward: float
    paper_training: float | None = None
    paper_testing: float | None = None


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    measure = partial(_measure, batch=options.batch, device=device)
    with plain_torch():
        apart = measure(network(AFI))
    paper = {row["architecture"]: row for row in paper_data()["peak_memory_mib"]["results"]}
    lines = [
        _line(PEER, measure(partial(torchvision.models.resnet50, num_classes=CLASSES))),
        _line(PLAIN, measure(network(PLAIN)), paper[PLAIN]),
        _line(AFI, measure(network(AFI)), paper[AFI]),
        _line(APART, apart),
    ]
    console.print(_table(lines), NOTE)
    console.print(f"ours: {how(device)}; batches of {options.batch}\n")
    console.print(explanation(lines, options.batch), "")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "memory.csv"
    plain = next(line for line in lines if line.network == PLAIN)
    pd.DataFrame(
        {
            **asdict(line),
            "training_ratio": round(line.training / plain.training, 4),
            "testing_ratio": round(line.testing / plain.testing, 4),
            "batch": options.batch,
            "measured": how(device),
        }
        for line in lines
    ).to_csv(path, index=False)
    console.print(f"Written: {path}")
    if options.rounds:
        print_speed(device, options.rounds)


def network(text: str, image_size: int = SIZE) -> MakeModel:
    """Return a function that builds that architecture."""
    architecture = Architecture.parse(text)
    return partial(build, architecture, num_classes=CLASSES, image_size=image_size)


def explanation(lines: list[Line], batch: int) -> str:
    """Say where the ratios stand against the paper's, and why they are no lower."""
    by_name = {line.network: line for line in lines}
    plain, afi = by_name[PLAIN], by_name[AFI]
    assert plain.paper_training and plain.paper_testing and afi.paper_training and afi.paper_testing
    features = sum(
        (shape.blocks - 1) * shape.channels * size**2
        for shape, size in zip(get_backbone(PLAIN).stages, STAGE_SIZES, strict=True)
    )
    half = 4 * batch * features / 2 / MIB
    training, testing = afi.training / plain.training, afi.testing / plain.testing
    without_r = (afi.training - half) / plain.training
    without_both = (afi.training - 2 * half) / plain.training
    return (
        f"Training takes {training:.3f} of the plain network's peak (paper "
        f"{afi.paper_training / plain.paper_training:.2f}). Of the {2 * half:,.0f} MiB that a "
        f"feature of every block with AFI comes to, the plain network keeps two (before and after "
        f"its activation), and AFI one and a half: X_i before its activation, and X_i and R in one "
        f"buffer. All else is kept by layers that AFI leaves as they are. To compute R anew in the "
        f"backward pass would make it {without_r:.3f}, R and X_i {without_both:.3f}, at the price "
        f"of time.\n"
        f"Inference takes {testing:.3f} (paper "
        f"{afi.paper_testing / plain.paper_testing:.2f}). Its peak lies where a block of stage 1 "
        f"adds its output to its input, tensors that AFI leaves as they are; the features it "
        f"carries come on top. The paper's {plain.paper_testing:,.0f} MiB for the plain network "
        f"are {plain.paper_testing / plain.testing:.1f} times what its tensors need at a time, so "
        f"they must hold much else, such as the libraries' workspaces and the allocator's stock."
    )


def print_speed(device: torch.device, rounds: int) -> None:
    """Time training steps of AFI-ResNet-50 with and without the accelerators, in turn."""
    size, batch = (SIZE, BATCH) if device.type == "cuda" else (64, 16)
    with device:
        model = build(Architecture.parse(AFI), num_classes=CLASSES, image_size=size)
        images, labels = torch.rand(batch, 3, size, size), torch.zeros(batch, dtype=torch.int64)
    model = model.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    ways = {AFI: nullcontext, APART: plain_torch}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            with way():
                seconds[name].append(_time(partial(_step, model, images, labels), device))
    for name, times in seconds.items():
        median = 1000 * statistics.median(times[1:])
        best = 1000 * min(times[1:])
        console.print(f"{name:20} {median:.0f} ms a training step (best {best:.0f})")
    clock = "time" if device.type == "cuda" else "CPU time"
    console.print(
        f"{NOTE}\nmedian {clock} of {rounds} rounds, in turn, {size} pixels, batches of {batch}; "
        f"{describe_device()}"
    )


def _step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(F.cross_entropy(model(images), labels))


def _time(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cpu":
        started = time.process_time()
        step()
        return time.process_time() - started
    started = time.perf_counter()
    step()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _measure(make: MakeModel, batch: int, device: torch.device) -> Memory:
    if device.type == "cuda":
        return allocated(make, SIZE, batch, device)
    return traced(make, SIZE, batch)


def _line(name: str, memory: Memory, paper: dict[str, float] | None = None) -> Line:
    return Line(
        name,
        round(memory.training / MIB, 1),
        round(memory.testing / MIB, 1),
        round(memory.kept / MIB, 1),
        paper and paper["training"],
        paper and paper["testing"],
    )


def _table(lines: list[Line]) -> Table:
    plain = next(line for line in lines if line.network == PLAIN)
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Peak memory, MiB",
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    table.add_column("\n", no_wrap=True)
    for heading in (
        "training\npaper",
        "\nours",
        "over\nplain",
        "testing\npaper",
        "\nours",
        "over\nplain",
        "kept for\nbackward",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.network,
            f"{line.paper_training:,.0f}" if line.paper_training else "",
            f"{line.training:,.0f}",
            f"{line.training / plain.training:.3f}",
            f"{line.paper_testing:,.0f}" if line.paper_testing else "",
            f"{line.testing:,.0f}",
            f"{line.testing / plain.testing:.3f}",
            f"{line.kept_for_backward:,.0f}",
        )
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=10, help="of the speed; 0: leave it out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
