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
UNITS = {"latency": 1_000_000}  # of a Count in one of a Cost: nanoseconds in a millisecond


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


class Count(NamedTuple):
    """What a network or a stage of it costs, in whole numbers, so that sums over stages are exact.

    Attributes:
        macs: multiply-accumulates per image, as in `Cost`.
        params: learnable parameters.
        norm_elements: output elements of all batch norms, per image.
        memory: bytes of a training step; 0 where nobody asked for it.
        latency: nanoseconds of a forward pass on the target device; 0 where nobody asked.
    """

    macs: int = 0
    params: int = 0
    norm_elements: int = 0
    memory: int = 0
    latency: int = 0

    @property
    def cost(self) -> Cost:
        """The same in the units that a person reads."""
        paper_flops = PAPER_BATCH * (self.macs + 2 * self.norm_elements)
        latency = self.latency / UNITS["latency"]
        return Cost(self.macs, self.params, paper_flops / 1e9, self.memory or None, latency or None)


class Parts(NamedTuple):
    """What a network costs as a whole, and its searched stages by themselves."""

    whole: Count
    stages: tuple[Count, ...]
