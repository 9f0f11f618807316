"""What a training step holds at its peak, without running one.

The peak comes where the backward pass begins: weights, gradients and momentum (float32), and all
that the forward pass keeps. Followed tensor by tensor, a step's peak is within 1 % of that sum
for batches of 64 (tests/cost/test_memory.py). Workspaces of the libraries and what an allocator
keeps in stock come on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, UntypedStorage, nn

from afi_search.cost.cost import Count, Parts
from afi_search.cost.counts import measure
from afi_search.nn import build, searched_stages
from afi_search.space import Architecture

_OUTSIDE = ""


def measure_memory(
    architecture: Architecture, *, num_classes: int, image_size: int, batch_size: int
) -> int:
    """Return the bytes that a training step of a batch holds at its peak, in float32.

    Raises:
        UnsupportedImageSize, AttentionTooNarrow: as `afi_search.nn.build` does.
    """
    params = measure(architecture, num_classes=num_classes, image_size=image_size).params
    kept = count_kept(
        architecture, num_classes=num_classes, image_size=image_size, batch_size=batch_size
    )
    return Count(params=params, kept=kept.whole.kept).memory


@lru_cache(maxsize=4096)
def count_kept(
    architecture: Architecture, *, num_classes: int, image_size: int, batch_size: int
) -> Parts:
    """Count what a forward pass keeps, for each stage, on the meta device.

    Raises:
        UnsupportedImageSize, AttentionTooNarrow: as `afi_search.nn.build` does.
    """
    with torch.device("meta"):
        model = build(architecture, num_classes=num_classes, image_size=image_size)
        images = torch.empty(batch_size, 3, image_size, image_size)
    stages = searched_stages(model)
    within = [_OUTSIDE]
    for name, stage in stages.items():
        stage.register_forward_pre_hook(lambda _module, _inputs, name=name: within.append(name))
        stage.register_forward_hook(lambda _module, _inputs, _output: _leave(within))
    with kept_bytes(model, lambda: within[-1]) as kept:
        model.train()(images)
    return Parts(Count(kept=sum(kept.values())), tuple(Count(kept=kept[name]) for name in stages))


@contextmanager
def kept_bytes(
    model: nn.Module, place: Callable[[], str] = lambda: _OUTSIDE
) -> Iterator[Counter[str]]:
    """Within it, sum up what is kept for a backward pass.

    The model's own weights and buffers do not count, and memory that tensors share counts once.

    Args:
        model: whose forward passes these are.
        place: says where in the network the pass is.

    Yields:
        place -> bytes.
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
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield total


def storage_id(storage: UntypedStorage) -> int:
    """Return what tells a storage from all others that are alive; addresses do not, on `meta`."""
    return int(storage._cdata)


def _leave(within: list[str]) -> None:
    within.pop()
