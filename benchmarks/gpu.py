"""All that a GPU is wanted for, in one go, goals beside results.

    python -m benchmarks.gpu                      everything, under 10 minutes on a GPU
    python -m benchmarks.gpu steps latency        some of it
    python -m benchmarks.gpu --rounds 2           a quick look; with 1, steps are not made eagerly

Each part is a process of its own, which may fail or be cut short: what was measured until then is
in results/gpu.csv. Pixels are made up. Without a GPU it all runs with tiny sizes, so that it can be
tried; those figures mean nothing and go nowhere. Needs neither Ray nor a data set.

compiling   Triton's kernels and torch.compile's networks, on all cores, for all parts after it
values      outputs and gradients against float64 on the CPU
steps       training of every family: captured or not, its speed, the eager speed, memory
kernels     of a step, and the bytes its operations read and write
sharing     trials at a time on one GPU, and what a context costs
supernet    architectures scored a minute, and a training step over that of a network alone
latency     of the captured forward pass and the eager one
promotion   a step on ImageNet's size, eager, captured and compiled
"""

from __future__ import annotations

import csv
import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import partial, partialmethod
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
import typer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from afi_search.capture import CaptureWarning, captured
from afi_search.cost import latency
from afi_search.data import Split, dataset_spec
from afi_search.data.image_loader import ImageSource
from afi_search.data.source import BatchSharding
from afi_search.nn import Supernet, build
from afi_search.nn.ops.common import plain
from afi_search.space import Architecture, Recipe, Space, SpaceFile
from afi_search.space.recipe import read_recipe
from afi_search.train import Trainer, seed_everything, trial_trainer
from afi_search.train import trainer as trainer_module
from afi_search.train.supernet import InheritedAccuracy
from benchmarks.epoch import CLASSES, DATA, SIZE, made_up
from benchmarks.rounds import RESULTS, against, best_device, console, facts, in_turn

FAMILIES = ["resnet32", "resnet110", "mobilenetv2", "shufflenetv2", "resnext29"]
DEVICE = best_device()
ON_GPU = DEVICE.type == "cuda"
TABLE = RESULTS / "gpu.csv" if ON_GPU else Path("/dev/null")
BATCHES = (128, 512) if ON_GPU else (4,)
PRECISIONS = ("fp32", "bf16") if ON_GPU else ("fp32",)
STEPS = 20 if ON_GPU else 2
"""Steps of an epoch here."""


def tell(
    part: str,
    what: str,
    value: float,
    goal: str = "",
    *,
    network: str = "",
    precision: str = "",
    batch: int = 0,
) -> None:
    """Print a figure beside its goal, like "< 1.2" or "> 0.9", and add it to the table."""
    relation, _, bound = goal.partition(" ")
    kept = bool(goal) and (value > float(bound) if relation == ">" else value < float(bound))
    holds = "" if not goal else "yes" if kept else "NO"
    row = {
        "part": part,
        "network": network,
        "precision": precision,
        "batch": batch or "",
        "what": what,
        "value": f"{value:.5g}",
        "goal": goal,
        "holds": holds,
        "device": facts(DEVICE)["device"],
        "torch": torch.__version__,
    }
    console.print(
        f"{part:10} {network:24} {precision:5} {batch or '':>4} {what:44} "
        f"{value:>12,.4g}  {goal:8} {holds}",
        soft_wrap=True,
        highlight=False,
    )
    new = not TABLE.exists() or TABLE.stat().st_size == 0
    with TABLE.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def with_afi(backbone: str) -> list[str]:
    return [backbone, f"{backbone}(base-r4)"]


def free() -> None:
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Return the median of so many calls, after one more."""
    times = []
    for _ in range(1 + rounds):
        wait()
        started = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - started)
    return median(times[1:])


def compiling(rounds: int) -> None:
    """What is compiled is kept on disk, so that what comes next need not wait for one core."""
    if not ON_GPU:
        return
    started = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count(), mp.get_context("spawn")) as of:  # the longest first
        jobs = [of.submit(_compile_promotion, text) for text in reversed(with_afi("resnet50"))]
        for backbone in reversed(["resnet20", *FAMILIES]):
            for text, precision in product(reversed(with_afi(backbone)), PRECISIONS):
                jobs.append(of.submit(_compile_step, text, precision))
        for job in jobs:
            job.result()
    tell("compiling", "seconds", time.perf_counter() - started)


def _compile_step(text: str, precision: str) -> None:
    with patch.object(trainer_module, "captured", _eager):
        _trainer(text, precision, BATCHES[0], steps=1).run_epoch()


def _compile_promotion(text: str) -> None:
    with patch.object(trainer_module, "captured", _eager):
        _promotion(text, "compiled")()


def values(rounds: int) -> None:
    """What is computed is right, to the rounding of its precision."""
    for backbone in ("resnet20", "mobilenetv2", "shufflenetv2", "resnext29")[: 4 if ON_GPU else 1]:
        for text in with_afi(backbone):
            for precision, goals in CLOSE.items() if ON_GPU else [("fp32", CLOSE["fp32"])]:
                torch.backends.cudnn.allow_tf32 = precision != "ieee"
                for what, error, goal in zip(WHAT, _strays(text, precision), goals, strict=True):
                    of = {"network": text, "precision": precision}
                    tell("values", f"relative error of {what}", error, f"< {goal:g}", **of)


WHAT = ("outputs", "gradients")
CLOSE = {"ieee": (1e-5, 2e-2), "fp32": (5e-3, 0.1), "bf16": (5e-2, 0.5)}
"""How far outputs and gradients may stray from float64; a ReLU that flips moves the latter much."""


def _strays(text: str, precision: str) -> list[float]:
    """Return the relative errors of the outputs and of all gradients together."""
    torch.manual_seed(0)
    model = build(Architecture.parse(text), num_classes=CLASSES, image_size=SIZE)
    images, labels = torch.randn(16, 3, SIZE, SIZE), torch.arange(16)
    exact = _outputs_and_gradients(deepcopy(model).double(), images.double(), labels, "fp32")
    model = model.to(DEVICE).to(memory_format=torch.channels_last)
    images = images.to(DEVICE).to(memory_format=torch.channels_last)
    got = _outputs_and_gradients(model, images, labels.to(DEVICE), precision)
    pairs = zip(got, exact, strict=True)
    return [float((one.cpu().double() - other).norm() / other.norm()) for one, other in pairs]


def _outputs_and_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, precision: str
) -> tuple[Tensor, Tensor]:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs = model(images)
    wide = torch.promote_types(outputs.dtype, torch.float32)
    torch.autograd.backward(F.cross_entropy(outputs.to(wide), labels))
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return outputs.detach(), torch.cat(gradients)


def steps(rounds: int) -> None:
    """Every family's training runs as graphs, faster than eagerly and than a plain loop."""
    for backbone in FAMILIES if ON_GPU else ["resnet20"]:
        for batch in BATCHES if backbone == "resnet32" else BATCHES[:1]:
            for precision in PRECISIONS:
                speeds = {
                    text: _speed(text, precision, batch, rounds) for text in with_afi(backbone)
                }
                plain, own = (speeds[text] for text in with_afi(backbone))
                of = {"network": backbone, "precision": precision, "batch": batch}
                tell("steps", "images/s with AFI over those without", own / plain, "> 0.85", **of)
            free()


def _speed(text: str, precision: str, batch: int, rounds: int) -> float:
    told = partial(tell, "steps", network=text, precision=precision, batch=batch)
    others: dict[str, float] = {}
    if rounds > 1 and precision == PRECISIONS[-1] and batch == BATCHES[0]:
        eager = _trainer(text, precision, batch)
        with patch.object(trainer_module, "captured", _eager):
            others["eager steps"] = STEPS * batch / seconds(eager._train, rounds // 2)
        del eager
        loop = seconds(_plain_step(text, batch, precision), 3 * rounds)
        others["a plain loop"] = batch / loop
    free()
    begun = time.perf_counter()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", CaptureWarning)
        trainer = _trainer(text, precision, batch)
        trainer.run_epoch()
        wait()
        told("seconds until the first epoch has ended", time.perf_counter() - begun)
    failures = [str(of.message) for of in warned if of.category is CaptureWarning]
    for failure in failures:
        console.print(failure)
    told("captured", float(ON_GPU and not failures), "> 0" if ON_GPU else "")
    speed = STEPS * batch / seconds(trainer._train, rounds)
    told("images/s", speed)
    for what, other in others.items():
        told(f"images/s over those of {what}", speed / other, "> 1")
    if ON_GPU:
        told("peak allocated, MB", torch.cuda.max_memory_allocated() / 1e6)
        told(
            "reserved over peak",
            torch.cuda.memory_reserved() / torch.cuda.max_memory_allocated(),
            "< 2",
        )
        del trainer
        free()
        told("MB reserved after the trial", torch.cuda.memory_reserved() / 1e6, "< 200")
    return speed


def _plain_step(text: str, batch: int, precision: str) -> Callable[[], None]:
    """Return an eager step in torch's own operations, on a batch that is there."""
    model = build(Architecture.parse(text), num_classes=CLASSES, image_size=SIZE)
    step = _step_of(model, batch, SIZE, precision, CLASSES)

    def run() -> None:
        with plain():
            step()

    return run


def _step_of(
    model: nn.Module, batch: int, size: int, precision: str, classes: int
) -> Callable[[], object]:
    model = model.to(DEVICE).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size, device=DEVICE)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=DEVICE) % classes
    rate = torch.tensor(0.01, device=DEVICE)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, fused=True)

    def step(images: Tensor, labels: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(images)
        torch.autograd.backward(F.cross_entropy(outputs.float(), labels))
        optimiser.step()

    run: Any = partial(step, images, labels)
    run.step, run.model, run.optimiser, run.given = step, model, optimiser, (images, labels)
    return run


def _trainer(text: str, precision: str, batch: int, *, steps: int = STEPS) -> Trainer:
    seed_everything(0)
    model = build(Architecture.parse(text), num_classes=CLASSES, image_size=SIZE)
    data = Split(dataset_spec(DATA), made_up(steps * batch), made_up(2000 if ON_GPU else 20))
    recipe = Recipe.model_validate({"epochs": 1000, "batch_size": batch, "precision": precision})
    return trial_trainer(model, recipe, data, seed=0, device=DEVICE)


def _eager(step: Any, inputs: object, changed: object) -> Any:
    return step


def kernels(rounds: int) -> None:
    """How many kernels a step has, and how many bytes go through memory."""
    batch = BATCHES[-1]
    for text in reversed(with_afi("resnet32" if ON_GPU else "resnet20")):
        trainer = _trainer(text, "bf16", batch)
        parts = next(iter(trainer._source.epoch(0)))
        trainer.model.train()

        def step(trainer: Trainer = trainer, parts: Any = parts) -> None:
            trainer._backward([trainer._source.batch(*parts)])
            trainer._descend()

        step()
        own = "(" in text
        told = partial(tell, "kernels", network=text, precision="bf16", batch=batch)
        with Bytes() as moved:
            step()
        told("GB that operations read and write", moved.total / 1e9, "< 5.5" if own else "")
        for name, size in moved.by_operation.most_common(8):
            told(f"GB of {name}", size / 1e9)
        if ON_GPU:
            _profile(told, step, own)


def _profile(told: Callable[..., None], step: Callable[[], None], own: bool) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        wait()
    launched = [of for of in profile.events() if of.device_type == torch.autograd.DeviceType.CUDA]
    told("kernels", len(launched), "< 500" if own else "")
    took: Counter[str] = Counter()
    for of in launched:
        took[of.name[:40]] += of.device_time
    told("ms of kernels", sum(took.values()) / 1e3)
    for name, microseconds in took.most_common(12):
        told(f"ms of {name}", microseconds / 1e3)


class Bytes(TorchDispatchMode):
    """Adds up the bytes that operations read and write, each argument and each result once."""

    def __init__(self) -> None:
        super().__init__()
        self.by_operation: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_operation.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            picked = "index" in func.name()  # reads no more of its source than it returns
            tensors = tree_leaves((out, out) if picked else (args, kwargs, out))
            tensors = [x for x in tensors if torch.is_tensor(x)]
            self.by_operation[str(func.name())] += sum(map(_bytes, tensors))
        return out


def _bytes(x: Tensor) -> int:
    """Return the bytes of a tensor; what is expanded lies in memory once."""
    count = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        count *= size if stride else 1
    return count * x.element_size()


def sharing(rounds: int) -> None:
    """Several trials at a time on one GPU train more images a second than one."""
    if not ON_GPU:
        return
    before = torch.cuda.mem_get_info()[0]
    text, batch, alone = "resnet32(base-r4)", BATCHES[0], 0.0
    for count in (1, 2, 4):
        context = mp.get_context("spawn")
        barrier, results = context.Barrier(count), context.Queue()
        processes = [
            context.Process(target=_trial, args=(text, batch, rounds, barrier, results))
            for _ in range(count)
        ]
        for process in processes:
            process.start()
        told = [results.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
        speed = sum(one["speed"] for one in told)
        alone = alone or speed
        of = {"network": text, "precision": "bf16", "batch": batch}
        tell("sharing", f"images/s of {count} at a time", speed, **of)
        if count > 1:
            tell("sharing", f"images/s of {count} over one alone", speed / alone, "> 1", **of)
        else:
            held = before - told[0]["free"] - told[0]["reserved"]
            tell("sharing", "MB of a process beyond what PyTorch reserves", held / 1e6, **of)


def _trial(text: str, batch: int, rounds: int, barrier: Any, results: Any) -> None:
    trainer = _trainer(text, "bf16", batch)
    trainer.run_epoch()
    barrier.wait(timeout=120)
    started = time.perf_counter()
    for _ in range(5 * rounds):
        trainer._train()
    speed = 5 * rounds * STEPS * batch / (time.perf_counter() - started)
    free, reserved = torch.cuda.mem_get_info()[0], torch.cuda.memory_reserved()
    results.put({"speed": speed, "free": free, "reserved": reserved})


def supernets(rounds: int) -> None:
    """A supernet scores architectures in no time, and trains as fast as they do alone."""
    backbone = "resnet32" if ON_GPU else "resnet20"
    file = {"backbone": backbone, "stages": {"all": {"choice": CHOICES}}}
    space = Space(SpaceFile.model_validate(file))
    net = Supernet(space, num_classes=CLASSES, image_size=SIZE)
    net = net.to(DEVICE).to(memory_format=torch.channels_last).eval()
    few, count = ((1280, 5000), 10 * rounds) if ON_GPU else ((8, 8), 1)
    data = Split(dataset_spec(DATA), *map(made_up, few))
    of = {"network": f"{backbone}, of {len(CHOICES)} choices", "precision": "bf16"}
    inherit = InheritedAccuracy(net, data, precision="bf16", device=DEVICE)
    some = [space[n % len(space)] for n in range(0, 7 * count, 7)]
    for one in some:  # kernels are compiled and convolutions chosen
        inherit(one)
    wait()
    started = time.perf_counter()
    for one in some:
        inherit(one)
    wait()
    speed = 60 * len(some) / (time.perf_counter() - started)
    tell("supernet", "architectures scored a minute", speed, "> 1000" if ON_GPU else "", **of)
    del inherit
    batch = BATCHES[0]
    for choice in CHOICES:
        net.set_active(f"{backbone}({choice})")
        pair = {"supernet": net.train(), "alone": net.extract()}
        steps = {name: _step_of(of, batch, SIZE, "bf16", CLASSES) for name, of in pair.items()}
        with plain():
            times = in_turn(steps, 3 * rounds, DEVICE)
        ratio = against(times["supernet"], times["alone"])["ratio"]
        of = {"network": f"{backbone}({choice})", "precision": "bf16", "batch": batch}
        tell("supernet", "seconds of a step over the network's alone", ratio, "< 1.1", **of)


CHOICES = ["off", "base-r4", "B-r4", "B-r4-se"][: 4 if ON_GPU else 2]


def latencies(rounds: int) -> None:
    """The latency objective times the device and not Python's launches."""
    for text in [*with_afi("resnet32"), *with_afi("mobilenetv2")] if ON_GPU else ["resnet20"]:
        for batch in (1, 128) if ON_GPU else (1,):
            time_it = partial(
                latency.time_stages,
                Architecture.parse(text),
                num_classes=CLASSES,
                image_size=SIZE,
                device=DEVICE,
                batch_size=batch,
            )
            of = {"network": text, "precision": "fp32", "batch": batch}
            parts = time_it()
            own = parts.whole.latency
            with patch.object(latency, "captured", _eager):
                eager = time_it().whole.latency
            stages = sum(stage.latency for stage in parts.stages)
            tell("latency", "microseconds", own / 1e3, **of)
            tell("latency", "over the eager pass", own / eager, "< 1" if ON_GPU else "", **of)
            tell("latency", "share of the stages", stages / own, "< 1.001", **of)


def promotion(rounds: int) -> None:
    """A step of a promotion, in the three ways it could be made."""
    batch, _ = OF_IMAGENET
    for text in reversed(with_afi("resnet50")) if ON_GPU else ["resnet50(base-r4)"]:
        told = partial(tell, "promotion", network=text, precision="bf16", batch=batch)
        for way in ("captured", "eager", "compiled"):
            free()
            torch._dynamo.reset()
            begun = time.perf_counter()
            run = _promotion(text, way)
            with patch.object(trainer_module, "captured", _eager if way == "eager" else captured):
                run()
            wait()
            told(f"seconds to the first step, {way}", time.perf_counter() - begun)
            told(f"images/s, {way}", batch / seconds(run, 3 * rounds))
            if ON_GPU:
                told(f"peak allocated, MB, {way}", torch.cuda.max_memory_allocated() / 1e6)
            del run


OF_IMAGENET = (64, 224) if ON_GPU else (2, 64)
"""Images and their pixels a side."""


def _promotion(text: str, way: str) -> Callable[[], object]:
    """Return a step of a promotion, made in one of the ways."""
    batch, size = OF_IMAGENET
    recipe = read_recipe("paper").model_copy(update={"precision": "bf16", "train_crop": size})
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    source = ImageSource(
        Batches(),
        recipe,
        BatchSharding(0, 1, 1, batch),
        images=batch,
        num_classes=1000,
        device=DEVICE,
    )
    trainer = Trainer(
        build(Architecture.parse(text), num_classes=1000, image_size=224),
        recipe,
        source,
        identity={},
        device=DEVICE,
        compiled=way == "compiled" and ON_GPU,
    )
    trainer.model.train()
    return partial(trainer.step, 0, [(pixels, torch.arange(batch))])


class Batches:
    """A loader whose batches nobody asks for."""

    left_out: dict[str, str] = {}

    def train(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield nothing."""
        yield from ()

    validation = partialmethod(train, 0)


PARTS = {
    "compiling": compiling,
    "values": values,
    "steps": steps,
    "kernels": kernels,
    "supernet": supernets,
    "latency": latencies,
    "promotion": promotion,
    "sharing": sharing,
}


def main(
    parts: Annotated[list[str] | None, typer.Argument(help="All where none is named.")] = None,
    rounds: Annotated[int, typer.Option(help="Repetitions of each timing.", min=1)] = 3,
    seconds_each: Annotated[int, typer.Option(help="After which a part is cut short.")] = 240,
    here: Annotated[bool, typer.Option(help="Run the parts in this process.", hidden=True)] = False,
) -> None:
    """Measure, print and write results/gpu.csv."""
    for name in parts or PARTS:
        if here:
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
            torch.backends.cudnn.benchmark = True
            PARTS[name](rounds)
            continue
        console.rule(name)
        command = [sys.executable, "-m", "benchmarks.gpu", name, "--here", "--rounds", str(rounds)]
        started = time.perf_counter()
        try:
            failed = subprocess.run(command, check=False, timeout=seconds_each).returncode
        except subprocess.TimeoutExpired:
            failed = -1
        console.print(
            f"{name}: {'FAILED after' if failed else 'took'} {time.perf_counter() - started:.0f} s"
        )


def _end_with(parent: int) -> None:
    """End this process when its parent has: an orphan would disturb what is measured next."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    typer.run(main)
