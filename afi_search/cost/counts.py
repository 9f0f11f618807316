"""Multiply-accumulates and parameters, without allocating weights or running data."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from afi_search.cost.cost import Cost, Count, Parts
from afi_search.nn import build, searched_stages
from afi_search.space import Architecture


def measure(architecture: Architecture, *, num_classes: int, image_size: int) -> Cost:
    """Return what an architecture costs; nothing is allocated and no data is run.

    Raises:
        UnsupportedImageSize, AttentionTooNarrow: as `afi_search.nn.build` does.
    """
    return count(architecture, num_classes=num_classes, image_size=image_size).whole.cost


@lru_cache(maxsize=4096)
def count(architecture: Architecture, *, num_classes: int, image_size: int) -> Parts:
    """Run the network on the meta device, where tensors have shapes and no data, and count.

    Raises:
        UnsupportedImageSize, AttentionTooNarrow: as `afi_search.nn.build` does.
    """
    with torch.device("meta"):
        model = build(architecture, num_classes=num_classes, image_size=image_size).eval()
        image = torch.empty(1, 3, image_size, image_size)
    norm_elements: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_hook(_note_elements(norm_elements, name))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    flops = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}

    def of(part: nn.Module, name: str, counted_as: str) -> Count:
        return Count(
            macs=flops[counted_as] // 2,
            params=sum(parameter.numel() for parameter in part.parameters()),
            norm_elements=sum(
                elements for norm, elements in norm_elements.items() if norm.startswith(name)
            ),
        )

    root = type(model).__name__
    return Parts(
        of(model, "", "Global"),
        tuple(
            of(module, f"{name}.", f"{root}.{name}")
            for name, module in searched_stages(model).items()
        ),
    )


def _note_elements(into: dict[str, int], name: str) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        into[name] = into.get(name, 0) + output.numel()

    return hook
