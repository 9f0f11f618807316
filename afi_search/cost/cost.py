"""The figures of a cost.

- `macs`: multiply-accumulates of convolutions and linear layers, AFI's scoring among them, per
  image. One multiply-accumulate is what other tools may count as two FLOPs.
- `params`: all learnable parameters.
- `paper_gflops`: the paper's own count of FLOPs, for a batch of 32:
  32 x (macs + 2 x output elements of every batch norm) / 10^9. It gives the paper's baselines to
  the printed digit; its AFI rows seem to hold a little more (up to 0.4 %), which may be AFI's
  elementwise work.
- `memory`: bytes that a training step holds at its peak, in float32: weights, gradients and
  momentum, and what the forward pass keeps for the backward pass.
- `latency`: milliseconds of a forward pass on the target device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

PAPER_BATCH = 32
_BYTES_PER_PARAMETER = 3 * 4


@dataclass(frozen=True)
class Cost:
    """The cost of an architecture.

    Attributes:
        macs: multiply-accumulates of convolutions, linear layers and AFI's scoring, per image.
        params: learnable parameters.
        paper_gflops: the paper's FLOPs, in 10^9, for a batch of 32.
        memory: bytes of a training step; None where nobody asked for it.
        latency: milliseconds of a forward pass on the target device; None where nobody asked.
    """

    macs: int
    params: int
    paper_gflops: float
    memory: int | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Count:
    """What a network or a part of it adds to its cost; whole numbers, so that sums are exact.

    Attributes:
        macs: as in `Cost`.
        params: as in `Cost`.
        norm_elements: output elements of all batch norms, per image.
        kept: bytes that the forward pass of a batch keeps for the backward pass; 0 where that was
            not counted.
    """

    macs: int = 0
    params: int = 0
    norm_elements: int = 0
    kept: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.macs + other.macs,
            self.params + other.params,
            self.norm_elements + other.norm_elements,
            self.kept + other.kept,
        )

    def __sub__(self, other: Count) -> Count:
        return Count(
            self.macs - other.macs,
            self.params - other.params,
            self.norm_elements - other.norm_elements,
            self.kept - other.kept,
        )

    @property
    def memory(self) -> int:
        """Bytes of weights, gradients, momentum and what is kept."""
        return _BYTES_PER_PARAMETER * self.params + self.kept

    @property
    def cost(self) -> Cost:
        """The same as a cost; of a difference, the differences."""
        paper_flops = PAPER_BATCH * (self.macs + 2 * self.norm_elements)
        return Cost(
            self.macs, self.params, paper_flops / 1e9, memory=self.memory if self.kept else None
        )


class Parts(NamedTuple):
    """What a network costs as a whole, and its stages by themselves."""

    whole: Count
    stages: tuple[Count, ...]

    def __add__(self, other: Parts) -> Parts:  # type: ignore[override]
        pairs = zip(self.stages, other.stages, strict=True)
        return Parts(self.whole + other.whole, tuple(one + two for one, two in pairs))
