"""Peak memory in training and in inference; the paper's Table 6 measures it for ResNet-50.

Two ways of measuring:

- `allocated`: a training step and an inference on a GPU, by the peak of the allocator;
- `traced`: the same on the `meta` device, by the bytes of all tensors alive at a time. It needs no
  GPU, no memory and no time, and leaves out what is not a tensor: workspaces of the libraries,
  the allocator's stock, the GPU's context.

Both train with SGD with momentum in float32, and count weights, gradients and momentum too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.analysis.live_bytes import LiveBytes
from afi_search.cost.memory import kept_bytes

MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """Bytes that a network needs.

    Attributes:
        training: peak of a training step.
        testing: peak of an inference.
        kept: activations that the forward pass keeps for the backward pass.
    """

    training: int
    testing: int
    kept: int


MakeModel = Callable[[], nn.Module]


def traced(make: MakeModel, image_size: int, batch_size: int) -> Memory:
    """Follow the tensors of a training step and of an inference, without running anything.

    Args:
        make: returns a network on torch's current default device.
        image_size: height and width of the images.
        batch_size: images at a time.
    """
    with torch.device("meta"):
        run = _Run(make, image_size, batch_size)

    def peak(step: Callable[[], None]) -> int:
        live = LiveBytes(run.tensors())
        with live:
            step()
        return live.peak

    return _measured(run, peak)


def allocated(make: MakeModel, image_size: int, batch_size: int, device: torch.device) -> Memory:
    """Run a training step and an inference on a GPU and ask its allocator.

    Args:
        make, image_size, batch_size: as for `traced`.
        device: the GPU.
    """
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
    run.forget()
    run.infer()
    return Memory(training=training, testing=peak(run.infer), kept=kept.total())


class _Run:
    """A network with a batch of images, to be trained and asked."""

    def __init__(self, make: MakeModel, image_size: int, batch_size: int) -> None:
        self.model = make()
        self.images = torch.empty(batch_size, 3, image_size, image_size).uniform_()
        self.labels = torch.zeros(batch_size, dtype=torch.int64)
        self.momentum: list[Tensor] = []
        self._optimiser: torch.optim.Optimizer | None = torch.optim.SGD(
            self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
        )

    def tensors(self) -> list[Tensor]:
        """Return all that outlives a step."""
        return [
            *self.model.parameters(),
            *self.model.buffers(),
            self.images,
            self.labels,
            *self.momentum,
        ]

    def loss(self) -> Tensor:
        return F.cross_entropy(self.model.train()(self.images), self.labels)

    def train(self) -> None:
        """Make a training step; the gradients are gone afterwards."""
        assert self._optimiser is not None
        torch.autograd.backward(self.loss())
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        states = self._optimiser.state.values()
        self.momentum = [state["momentum_buffer"] for state in states]

    def forget(self) -> None:
        """Drop what only training needs."""
        self._optimiser = None
        self.momentum = []

    def infer(self) -> None:
        with torch.no_grad():
            self.model.eval()(self.images)
