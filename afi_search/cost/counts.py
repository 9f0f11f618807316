"""Multiply-accumulates, parameters and memory, without allocating weights or running data.

The peak of a training step comes where the backward pass begins: weights, gradients and momentum
(float32), and all that the forward pass keeps. Followed tensor by tensor, a step's peak is within
1 % of that sum for batches of 64 (tests/cost/test_memory.py). Workspaces of the libraries and what
an allocator keeps in stock come on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from afi_search.cost.cost import Cost, Count, Parts
from afi_search.nn import build, searched_stages
from afi_search.space import Architecture

_BYTES_PER_PARAMETER = 3 * 4  # the weight, its gradient and its momentum, in float32
_OUTSIDE = ""  # of all searched stages


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
        ArchitectureError, UnknownName: the text is of no architecture.
        UserError: `afi_search.nn.build` refuses the architecture.

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
    place = _place_of_pass(model)
    flops, norm_elements, kept = Counter[str](), Counter[str](), Counter[str]()

    def count_norm(_norm: nn.Module, _inputs: object, output: Tensor) -> None:
        norm_elements[place()] += output.numel()

    with ExitStack() as hooks, torch.no_grad(), _FlopCounter(flops, place):
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                hooks.enter_context(module.register_forward_hook(count_norm))
        model(image)
    if batch_size is not None:
        with kept_bytes(model, place) as kept:
            model.train()(batch)

    def of(part: nn.Module, places: list[str]) -> Count:
        params = sum(parameter.numel() for parameter in part.parameters())
        macs, norms, memory = (
            sum(of_kind[name] for name in places) for of_kind in (flops, norm_elements, kept)
        )
        if batch_size is not None:
            memory += _BYTES_PER_PARAMETER * params
        return Count(macs // 2, params, norms, memory)

    stages = searched_stages(model)
    return Parts(
        of(model, [_OUTSIDE, *stages]), tuple(of(stage, [name]) for name, stage in stages.items())
    )


def _place_of_pass(model: nn.Module) -> Callable[[], str]:
    """Return a function that gives the name of the stage whose forward pass is running."""
    names = {stage: name for name, stage in searched_stages(model).items()}
    within = [_OUTSIDE]

    def enter(stage: nn.Module, _inputs: object) -> None:
        within.append(names[stage])  # type: ignore[index]

    def leave(_stage: nn.Module, _inputs: object, _output: object) -> None:
        within.pop()

    for stage in names:
        stage.register_forward_pre_hook(enter)
        stage.register_forward_hook(leave)
    return lambda: within[-1]


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


@contextmanager
def kept_bytes(
    model: nn.Module, place: Callable[[], str] = lambda: _OUTSIDE
) -> Iterator[Counter[str]]:
    """Within the context, sum up the bytes that autograd saves for the backward pass, by `place()`.

    The model's own weights and buffers do not count, and memory that tensors share counts once.
    """
    seen = {storage_id(t.untyped_storage()) for t in [*model.parameters(), *model.buffers()]}
    held: list[UntypedStorage] = []
    total: Counter[str] = Counter()

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage_id(storage) not in seen:
            seen.add(storage_id(storage))
            held.append(storage)
            total[place()] += storage.nbytes()
        return tensor.detach()  # what a node returns would else keep it alive

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield total


def storage_id(storage: UntypedStorage) -> int:
    """Return the identity of a storage; `data_ptr()` is 0 for every `meta` tensor."""
    return int(storage._cdata)
