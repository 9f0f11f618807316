"""Latency of a network on a device: float32 forward passes after warm-up, timed.

On a GPU they are one CUDA graph: a small network computes for less time than Python takes to launch
its kernels one by one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor, nn

from afi_search.capture import captured
from afi_search.cost.cost import Count, Parts
from afi_search.device import describe_device
from afi_search.errors import UserError
from afi_search.nn import build, searched_stages
from afi_search.space import Architecture

_WARM_UP = 5
_ROUNDS = 25


def time_stages(
    architecture: Architecture,
    *,
    num_classes: int,
    image_size: int,
    device: torch.device,
    batch_size: int,
) -> Parts:
    """Time forward passes of random weights and images; return median ns, whole and by stage."""
    model = build(architecture, num_classes=num_classes, image_size=image_size)
    model = model.eval().to(device).to(memory_format=torch.channels_last)
    images = torch.randn(batch_size, 3, image_size, image_size, device=device)
    images = images.to(memory_format=torch.channels_last)
    parts = [model, *searched_stages(model).values()]
    on_gpu = device.type == "cuda"
    marks: list[tuple[Any, Any]] = []
    for part in parts:
        _mark(part, _event if on_gpu else perf_counter_ns, marks)

    def run(images: Tensor) -> None:
        marks.clear()
        model(images)

    rounds: list[list[int]] = []
    with torch.no_grad():
        forward = captured(run, [images], []) if on_gpu else run
        for _ in range(_WARM_UP + _ROUNDS):
            forward(images)
            if on_gpu:
                torch.cuda.synchronize()
                rounds.append([round(1e6 * start.elapsed_time(end)) for start, end in marks])
            else:
                rounds.append([end - start for start, end in marks])
    warm = zip(*rounds[_WARM_UP:], strict=True)
    *stages, whole = (Count(latency=round(statistics.median(times))) for times in warm)
    return Parts(whole, tuple(stages))  # the network itself ends last


def target_device(name: str) -> torch.device:
    """Return the device a space file names as its target; a UserError: this machine has none."""
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UserError("target.device: cuda: this machine has no CUDA device; use cpu or auto")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def describe_target(device: torch.device, batch: int) -> str:
    """Return a description of the device, threads, batch size and dtype of a latency."""
    threads = "" if device.type == "cuda" else f"{torch.get_num_threads()} threads on "
    return f"{threads}{describe_device(device.type)}; batches of {batch}, float32"


def _event() -> torch.cuda.Event:
    """Record an event in the GPU's stream; in a graph it is recorded anew each time it runs."""
    capturing = torch.cuda.is_current_stream_capturing()
    event = torch.cuda.Event(enable_timing=True, external=capturing)
    event.record()
    return event


def _mark(part: nn.Module, now: Callable[[], Any], marks: list[tuple[Any, Any]]) -> None:
    """Append (start, end) to `marks` each time a module runs, in the order in which modules end."""
    begun: list[Any] = []

    def begin(_module: nn.Module, _inputs: object) -> None:
        begun.append(now())

    def end(_module: nn.Module, _inputs: object, _output: Tensor) -> None:
        marks.append((begun.pop(), now()))

    part.register_forward_pre_hook(begin)
    part.register_forward_hook(end)
