"""Counting the bytes of all tensors that are alive at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from afi_search.cost.memory import storage_id


class LiveBytes(TorchDispatchMode):
    """While it is entered, follows every tensor that an operation makes until it is freed.

    Memory that tensors share counts once. It works on any device and also on `meta`, where tensors
    have sizes and no data, so that a network can be followed that fits no memory at hand. It does
    not see what an operation uses and frees within itself, such as the workspace of a convolution,
    nor what an allocator keeps in stock.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at a time.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        """Begin with tensors that are there already."""
        super().__init__()
        self.now = 0
        self.peak = 0
        self._alive: set[int] = set()
        self._hold(tensors)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._hold(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def _hold(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage_id(storage) not in self._alive:
                self._alive.add(storage_id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, storage_id(storage), storage.nbytes())
        self.peak = max(self.peak, self.now)

    def _free(self, storage: int, size: int) -> None:
        self._alive.discard(storage)
        self.now -= size
