"""What a trainer asks of its data: batches on a device, augmented and normalised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""Images, B x 3 x H x W, and labels: B int64, or B x num_classes where they are mixed."""


@dataclass(frozen=True)
class BatchSharding:
    """How a step's batch is shared out to `world` processes, this one being `rank`.

    Each sums up the gradients of `accumulation_steps` batches of `per_device_batch` images.
    """

    rank: int
    world: int
    accumulation_steps: int
    per_device_batch: int

    @property
    def batch_size(self) -> int:
        """Images a step, over all processes."""
        return self.world * self.accumulation_steps * self.per_device_batch

    def steps(self, images: int) -> int:
        """Return the steps of an epoch; the last is filled up from the epoch's beginning."""
        return -(-images // self.batch_size)


class DataSource(Protocol):
    """Training and validation images of one process; all steps of an epoch are full.

    It is `capturable` if `batch` works on tensors of the device alone and draws nothing, so that a
    CUDA graph can repeat it.
    """

    sharding: BatchSharding
    steps_per_epoch: int
    capturable: bool

    def epoch(self, number: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield what `batch` makes each batch of, `accumulation_steps` a step; epochs from 0."""

    def batch(self, *parts: Tensor) -> Batch:
        """Return a batch to train on, augmented and normalised, on the device."""

    def validation(self) -> Iterator[Batch]:
        """Yield this process's part of the validation images, normalised, each image once."""

    def get_state(self) -> Tensor | None:
        """Return what the next epoch's order and augmentation depend on besides its number."""

    def set_state(self, state: Tensor | None) -> None:
        """Go on from such a state."""
