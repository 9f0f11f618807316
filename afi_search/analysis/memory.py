"""Peak memory in training and in inference; the paper's Table 6 measures it for ResNet-50.

Measured on a GPU by its allocator, or on the `meta` device by the bytes of all tensors alive at a
time, which needs no GPU, memory or time, and leaves out what is not a tensor: workspaces of the
libraries, the allocator's stock, the GPU's context. Both train with SGD with momentum in float32,
and count weights, gradients and momentum too.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from afi_search.cost.counts import kept_bytes, storage_id

MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a training step and of an inference, and kept for the backward pass."""

    training: int
    testing: int
    kept: int


MakeModel = Callable[[], nn.Module]


def traced(make: MakeModel, image_size: int, batch_size: int) -> Memory:
    """Trace a training step and an inference on the `meta` device, torch's default for `make`."""
    with torch.device("meta"):
        run = _Run(make, image_size, batch_size)

    def peak(step: Callable[[], None]) -> int:
        with LiveBytes(run.tensors()) as live:
            step()
        return live.peak

    return _measured(run, peak)


def allocated(make: MakeModel, image_size: int, batch_size: int, device: torch.device) -> Memory:
    """Measure a training step and an inference on a GPU by its allocator."""
    others = torch.cuda.memory_allocated(device)
    with device:
        run = _Run(make, image_size, batch_size)

    def peak(step: Callable[[], None]) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - others

    return _measured(run, peak)


def _measured(run: _Run, peak: Callable[[Callable[[], None]], int]) -> Memory:
    run.train()  # makes the momentum, and lets the libraries settle
    training = peak(run.train)
    with kept_bytes(run.model) as kept:
        run.loss()
    run.optimiser.state.clear()  # an inference has no momentum
    run.infer()
    return Memory(training=training, testing=peak(run.infer), kept=kept.total())


class _Run:
    """A network with a batch of images, channels last, to be trained and evaluated."""

    def __init__(self, make: MakeModel, image_size: int, batch_size: int) -> None:
        images = torch.empty(batch_size, 3, image_size, image_size).uniform_()
        self.model = make().to(memory_format=torch.channels_last)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.zeros(batch_size, dtype=torch.int64)
        parameters = self.model.parameters()
        self.optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-4)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that are alive between steps."""
        momentum = [state["momentum_buffer"] for state in self.optimiser.state.values()]
        weights = [*self.model.parameters(), *self.model.buffers()]
        return [*weights, *momentum, self.images, self.labels]

    def loss(self) -> Tensor:
        return F.cross_entropy(self.model.train()(self.images), self.labels)

    def train(self) -> None:
        """Make a training step; the gradients are gone afterwards."""
        torch.autograd.backward(self.loss())
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def infer(self) -> None:
        with torch.no_grad():
            self.model.eval()(self.images)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all live tensors within the context, shared memory once.

    `now` are alive, `peak` were at a time. What an operation uses and frees within itself is not
    seen.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
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
