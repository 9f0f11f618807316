"""The figures of a cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

PAPER_BATCH = 32
CONVENTIONS = {
    "macs": "multiply-accumulates of conv and linear layers and AFI scoring, per image; not "
    "doubled into additions and multiplications",
    "params": "all learnable parameters",
    "paper_gflops": "the paper's count, in billions for a batch of 32: 32 x (MACs + 2 x output "
    "elements of every batch norm)",
    "memory": "bytes that a training step of the recipe's batch holds at its peak, in float32; "
    "null where the study did not ask for it",
    "latency": "milliseconds of a forward pass on the target, in float32, summed over stages that "
    "were measured one by one; null where the study did not ask for it",
}
"""What each figure of a `Cost` counts, for whoever is shown it."""
UNITS = {"latency": 1_000_000}  # of a Count in one of a Cost: nanoseconds in a millisecond


@dataclass(frozen=True)
class Cost:
    """The cost of an architecture; CONVENTIONS says what each figure counts.

    Attributes:
        macs: per image; one of them is what other tools may count as two FLOPs.
        params: of the whole network.
        paper_gflops: in 10^9. It gives the paper's baselines to the printed digit; its AFI rows
            seem to hold up to 0.4 % more, perhaps AFI's elementwise work.
        memory: bytes: weights, gradients and momentum, and what the forward pass keeps for the
            backward pass; None where nobody asked for it.
        latency: milliseconds; None where nobody asked for it.
        own: what a user's functions measure, by the name of the objective.
    """

    macs: int
    params: int
    paper_gflops: float
    memory: int | None = None
    latency: float | None = None
    own: Mapping[str, float] = field(default_factory=dict, hash=False)

    def figures(self) -> dict[str, float]:
        """Return all that is known, by name.

        >>> Cost(100, 10, 0.1, own={"joules": 0.5}).figures()
        {'macs': 100, 'params': 10, 'paper_gflops': 0.1, 'joules': 0.5}
        """
        known = {name: value for name, value in vars(self).items() if value is not None}
        own = known.pop("own")
        return {**known, **own}


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
        """The same in the units that a person reads.

        >>> Count(macs=1_000, params=10, norm_elements=50, latency=2_500_000).cost.latency
        2.5
        """
        paper_flops = PAPER_BATCH * (self.macs + 2 * self.norm_elements)
        latency = self.latency / UNITS["latency"]
        return Cost(self.macs, self.params, paper_flops / 1e9, self.memory or None, latency or None)


class Parts(NamedTuple):
    """What a network costs as a whole, and its searched stages by themselves."""

    whole: Count
    stages: tuple[Count, ...]
