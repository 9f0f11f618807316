"""Choice of the compute dtype: fp32 or bf16."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal, cast

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from afi_search.capture import Step, captured
from afi_search.files import write_once
from afi_search.nn.afi import Scorer
from afi_search.space.fields import PrecisionSetting

# x86 instructions that multiply bf16; without them bf16 is emulated, slower than fp32.
CPU_BF16 = ("avx512_bf16", "amx_bf16")

ROUNDS = 3
LARGEST_BATCH = 128
LARGEST_ON_CPU = 2**18
"""Images of a step measured on a CPU at most, and pixels of all of them; more would take long."""

Precision = Literal["fp32", "bf16"]


def autocast_dtype(precision: PrecisionSetting, device: torch.device) -> torch.dtype | None:
    """Return the dtype to autocast to on `device`, or None for plain fp32."""
    if precision == "auto":
        return torch.bfloat16 if computes_bf16(device) else None
    return torch.bfloat16 if precision == "bf16" else None


class Narrowed(torch.autograd.Function):
    """Weights in another dtype, all of them, and their gradients, in a kernel or two.

    Autocast takes two a weight.
    """

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = weights[0].dtype
        ctx.set_materialize_grads(False)
        return _in_dtype(weights, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = iter(_in_dtype([one for one in gradients if one is not None], ctx.dtype))
        return None, *(None if one is None else next(there) for one in gradients)


def _in_dtype(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    made = tuple(torch.empty_like(one, dtype=dtype) for one in tensors)
    if made:
        torch._foreach_copy_(made, tuple(tensors))
    return made


def narrowed_by_autocast(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that autocast narrows, by name: of convolutions and linear layers.

    Not those of scorers, which compute without autocast.
    """
    scorers = [module for module in model.modules() if isinstance(module, Scorer)]
    wide = {parameter for scorer in scorers for parameter in scorer.parameters()}
    return {
        f"{name}.{own}".lstrip("."): parameter
        for name, module in model.named_modules()
        if isinstance(module, (_ConvNd, nn.Linear))
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.dtype == torch.float32 and parameter not in wide
    }


def resolve_precision(
    precision: PrecisionSetting,
    name: str,
    make: Callable[[], nn.Module],
    *,
    batch_size: int,
    image_size: int,
    device: torch.device,
    folder: str,
) -> Precision:
    """Return the precision, and instead of `auto` the one that the device is faster in.

    Measured once per backbone and device type and cached in the user's cache directory. The first
    decision written to `folder` is binding for all workers of a study or promotion, also after a
    restart, so that all of it is trained alike.

    Args:
        name: of the backbone.
        make: makes a network to measure.
        batch_size: images that the device takes at once.
        image_size: their height and width, pixels.
        folder: local or any fsspec URL that all workers share.
    """
    if precision != "auto":
        return precision
    if not computes_bf16(device):
        return "fp32"
    batch = batch_size
    if device.type == "cpu":
        batch = min(batch, LARGEST_BATCH, max(2, LARGEST_ON_CPU // image_size**2))

    def measure() -> str:
        return faster(make(), torch.rand(batch, 3, image_size, image_size), device)

    def remembered() -> str:
        try:
            return write_once(str(_cache(f"{name} {image_size} {batch}", device)), measure)
        except OSError:  # There is no cache to write to.
            return measure()

    return cast(Precision, write_once(f"{folder}/{name}.precision", remembered))


def faster(model: nn.Module, images: torch.Tensor, device: torch.device) -> Precision:
    """Return in which precision forward and backward pass take less time, measured in turn.

    One in which they need more memory than there is takes for ever.
    """
    model = model.to(device).to(memory_format=torch.channels_last)
    images = images.to(device).to(memory_format=torch.channels_last)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    steps = {precision: _step(model, images, precision) for precision in precisions}
    seconds: dict[str, list[float]] = {precision: [] for precision in precisions}
    for _ in range(1 + ROUNDS):
        for precision, step in steps.items():
            try:
                seconds[precision].append(_time(step, images))
            except torch.OutOfMemoryError:
                seconds[precision].append(math.inf)
    times = {precision: median(of[1:]) for precision, of in seconds.items()}
    return min(precisions, key=lambda precision: times[precision])


def computes_bf16(device: torch.device) -> bool:
    """Return whether `device` multiplies bf16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_computes_bf16(torch.cpu.get_capabilities())


def cpu_computes_bf16(capabilities: Mapping[str, object]) -> bool:
    """Return whether a CPU with these capabilities multiplies bf16 in hardware."""
    return any(capabilities.get(name, False) for name in CPU_BF16)


def _step(model: nn.Module, images: torch.Tensor, precision: Precision) -> Step:
    dtype = autocast_dtype(precision, images.device)

    def step(images: torch.Tensor) -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, dtype, enabled=dtype is not None):
            outputs = model(images)
        torch.autograd.backward(outputs.float().square().mean())

    return captured(step, [images], list(model.buffers())) if images.is_cuda else step


def _time(step: Step, images: torch.Tensor) -> float:
    started = perf_counter()
    step(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return perf_counter() - started


def _cache(step: str, device: torch.device) -> Path:
    """Return the file that remembers how such a step was measured on devices like this one."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
    text = f"{step} {where} torch {torch.__version__}"
    return user_cache_path("afi_search") / "precision" / re.sub(r"[^\w.+-]+", "-", text)
