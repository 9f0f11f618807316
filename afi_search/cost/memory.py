"""Activation memory: the bytes that a forward pass saves for the backward pass.

The peak of a step comes where the backward pass begins: weights, gradients and momentum (float32),
and all that the forward pass keeps. Followed tensor by tensor, a step's peak is within 1 % of that
sum for batches of 64 (tests/cost/test_memory.py). Workspaces of the libraries and what an
allocator keeps in stock come on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, UntypedStorage, nn

from afi_search.nn import searched_stages

OUTSIDE = ""


def place_of_pass(model: nn.Module) -> Callable[[], str]:
    """Return a function that gives the name of the stage whose forward pass is running.

    Outside of the searched stages it is `OUTSIDE`.
    """
    within = [OUTSIDE]
    for name, stage in searched_stages(model).items():
        stage.register_forward_pre_hook(lambda _stage, _inputs, name=name: within.append(name))
        stage.register_forward_hook(lambda _stage, _inputs, _output: _leave(within))
    return lambda: within[-1]


@contextmanager
def kept_bytes(
    model: nn.Module, place: Callable[[], str] = lambda: OUTSIDE
) -> Iterator[Counter[str]]:
    """Within the context, sum up the bytes that autograd saves for the backward pass.

    The model's own weights and buffers do not count, and memory that tensors share counts once.

    Args:
        model: its parameters and buffers are left out.
        place: returns the name of the part of the network that is running.

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
    """Return the identity of a storage; `data_ptr()` is 0 for every `meta` tensor."""
    return int(storage._cdata)


def _leave(within: list[str]) -> None:
    within.pop()
