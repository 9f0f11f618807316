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
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from afi_search.analysis.memory import (
    MIB,
    MakeModel,
    Memory,
    allocated,
    as_csv,
    how,
    memory_table,
    rich_table,
    traced,
)
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


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    measure = partial(_measure, batch=options.batch, device=device)
    found = {
        PEER: measure(partial(torchvision.models.resnet50, num_classes=CLASSES)),
        PLAIN: measure(network(PLAIN)),
        AFI: measure(network(AFI)),
    }
    with plain_torch():
        found[APART] = measure(network(AFI))
    title = f"Peak memory in MiB, batches of {options.batch}"
    table = memory_table(title, list(found), list(found.values()), how(device))
    console.print(rich_table(table), NOTE, "", explanation(found, options.batch), "", sep="\n")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "memory.csv"
    path.write_text(as_csv([table]), encoding="utf-8")
    console.print(f"Written: {path}")
    if options.rounds:
        print_speed(device, options.rounds)


def network(text: str, image_size: int = SIZE) -> MakeModel:
    """Return a function that builds that architecture."""
    architecture = Architecture.parse(text)
    return partial(build, architecture, num_classes=CLASSES, image_size=image_size)


def explanation(found: dict[str, Memory], batch: int) -> str:
    """Say where the ratios stand against the paper's, and why they are no lower."""
    plain, afi = found[PLAIN], found[AFI]
    printed = {row["architecture"]: row for row in paper_data()["peak_memory_mib"]["results"]}
    features = sum(
        (shape.blocks - 1) * shape.channels * size**2
        for shape, size in zip(get_backbone(PLAIN).stages, STAGE_SIZES, strict=True)
    )
    half = 4 * batch * features // 2
    training, testing = afi.training / plain.training, afi.testing / plain.testing
    without_r = (afi.training - half) / plain.training
    without_both = (afi.training - 2 * half) / plain.training
    their_training = printed[AFI]["training"] / printed[PLAIN]["training"]
    their_testing = printed[AFI]["testing"] / printed[PLAIN]["testing"]
    times = printed[PLAIN]["testing"] * MIB / plain.testing
    return (
        f"Training takes {training:.3f} of the plain network's peak (paper {their_training:.2f}). "
        f"Of the {2 * half / MIB:,.0f} MiB that a feature of every block with AFI comes to, the "
        f"plain network keeps two (before and after its activation), and AFI one and a half: X_i "
        f"before its activation, and X_i and R in one buffer. All else is kept by layers that AFI "
        f"leaves as they are. To compute R anew in the backward pass would make it "
        f"{without_r:.3f}, R and X_i {without_both:.3f}, at the price of time.\n"
        f"Inference takes {testing:.3f} (paper {their_testing:.2f}). Its peak lies where a block "
        f"of stage 1 adds its output to its input, tensors that AFI leaves as they are; the "
        f"features it carries come on top. The paper's {printed[PLAIN]['testing']:,.0f} MiB for "
        f"the plain network are {times:.1f} times what its tensors need at a time, so they must "
        f"hold much else, such as the libraries' workspaces and the allocator's stock."
    )


def print_speed(device: torch.device, rounds: int) -> None:
    """Time training steps of AFI-ResNet-50 with and without the accelerators, in turn."""
    size, batch = (SIZE, BATCH) if device.type == "cuda" else (64, 16)
    with device:
        model = build(Architecture.parse(AFI), num_classes=CLASSES, image_size=size)
        images, labels = torch.rand(batch, 3, size, size), torch.zeros(batch, dtype=torch.int64)
    model = model.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[], AbstractContextManager[None]]]
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=10, help="of the speed; 0: leave it out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
