"""Multiply-accumulates, parameters and memory, without allocating weights or running data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from afi_search.cost.cost import Cost, Count, Parts
from afi_search.cost.memory import OUTSIDE, kept_bytes, place_of_pass
from afi_search.nn import build, searched_stages
from afi_search.space import Architecture

_BYTES_PER_PARAMETER = 3 * 4  # the weight, its gradient and its momentum, in float32


def measure(
    architecture: Architecture | str,
    *,
    num_classes: int,
    image_size: int,
    batch_size: int | None = None,
) -> Cost:
    """Return what an architecture costs; nothing is allocated and no data is run.

    Args:
        architecture: what to count, as such or by its text.
        num_classes, image_size: as for `afi_search.nn.build`.
        batch_size: images of a training step, to count its memory, too.

    Raises:
        ArchitectureError, UnknownBackbone: the text is of no architecture.
        UnsupportedImageSize, AttentionTooNarrow: as `afi_search.nn.build` does.

    >>> measure("resnet32", num_classes=100, image_size=32).macs
    69130496
    """
    return count(
        Architecture.of(architecture),
        num_classes=num_classes,
        image_size=image_size,
        batch_size=batch_size,
    ).whole.cost


@lru_cache(maxsize=4096)
def count(
    architecture: Architecture, *, num_classes: int, image_size: int, batch_size: int | None = None
) -> Parts:
    """Run the network on the meta device, where tensors have shapes and no data, and count.

    Args and errors are those of `measure`; latency is not measured.
    """
    with torch.device("meta"):
        model = build(architecture, num_classes=num_classes, image_size=image_size).eval()
        image = torch.empty(1, 3, image_size, image_size)
        batch = torch.empty(batch_size or 0, 3, image_size, image_size)
    place = place_of_pass(model)
    flops, norm_elements, kept = Counter[str](), Counter[str](), Counter[str]()
    hooks = [
        norm.register_forward_hook(
            lambda _norm, _inputs, output: norm_elements.update({place(): output.numel()})
        )
        for norm in model.modules()
        if isinstance(norm, _BatchNorm)
    ]
    with torch.no_grad(), _FlopCounter(flops, place):
        model(image)
    for hook in hooks:
        hook.remove()
    if batch_size is not None:
        with kept_bytes(model, place) as kept:
            model.train()(batch)

    def of(part: nn.Module, places: list[str]) -> Count:
        params = sum(parameter.numel() for parameter in part.parameters())
        return Count(
            macs=sum(flops[name] for name in places) // 2,
            params=params,
            norm_elements=sum(norm_elements[name] for name in places),
            memory=0
            if batch_size is None
            else _BYTES_PER_PARAMETER * params + sum(kept[name] for name in places),
        )

    stages = searched_stages(model)
    return Parts(
        of(model, [OUTSIDE, *stages]), tuple(of(stage, [name]) for name, stage in stages.items())
    )


class _FlopCounter(TorchDispatchMode):
    """Sums up torch's own count of FLOPs, two a multiply-accumulate, by where the pass is.

    torch.utils.flop_counter.FlopCounterMode does the same, and takes every operation apart first.
    """

    def __init__(self, flops: Counter[str], place: Callable[[], str]) -> None:
        super().__init__()
        self._flops, self._place = flops, place

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, function, types, args=(), kwargs=None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        if formula is not None:
            self._flops[self._place()] += formula(*args, **(kwargs or {}), out_val=result)
        return result
