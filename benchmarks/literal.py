"""AFI as equations (1) and (2) read, each operation left to autograd: what ours is measured beside.

Every block pools all its sources anew, multiplies each by its weight and adds up; every product
keeps its feature and makes a gradient of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn.afi import BlockAFI, Scorer
from afi_search.nn.ops.batch_norm import BatchNorm2d

Features = tuple[Tensor, ...]


def add(afi: BlockAFI, state: Features | None, feature: Tensor, reader: int) -> Features:
    """Keep one feature more."""
    return (*(state or ()), feature)


def read(afi: BlockAFI, state: Features, reader: int) -> Tensor:
    """Return R of the features."""
    scorer = afi.scorers[reader]
    pooled = torch.stack([feature.mean(dim=(2, 3)) for feature in state], dim=1)
    weights = torch.softmax(scorer(pooled), dim=1).to(state[0].dtype)
    return sum(
        (
            weight[:, :, None, None] * feature
            for weight, feature in zip(weights.unbind(1), state, strict=True)
        ),
        start=torch.zeros((), dtype=state[0].dtype, device=state[0].device),
    )


def score(scorer: Scorer, pooled: Tensor) -> Tensor:
    """Return the scores, narrowed where autocast narrows."""
    scores: Tensor = scorer.expand(F.relu(scorer.reduce(pooled)))
    return scores


def join(
    before: Tensor, integrated: Tensor, ceiling: float, read_later: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return (X, R), concatenated, X and R."""
    feature = before.clamp(0, ceiling)
    return torch.cat((feature, integrated), dim=1), feature if read_later else None, integrated


def make(integrated: Tensor) -> tuple[Tensor, Tensor]:
    """Return R, which `read` has made, twice."""
    return integrated, integrated


def keep(feature: Tensor, channels: int | None = None) -> Tensor:
    """Return the feature, or its first channels, which every reader pools for itself."""
    return feature[:, :channels]


@contextmanager
def literal_afi() -> Iterator[None]:
    """Within it, every network with the block scorer runs the literal form."""
    with (
        patch.object(BlockAFI, "add", add),
        patch.object(BlockAFI, "read", read),
        patch.object(Scorer, "forward", score),
        patch("afi_search.nn.stage.integrate_and_join", join),
        patch("afi_search.nn.stage.activate_and_join", join),
        patch("afi_search.nn.stage.integrate", make),
        patch("afi_search.nn.stage.pool", keep),
    ):
        yield


def with_torchs_norms(network: nn.Module) -> nn.Module:
    """Return the network, whose batch norms are torch's own from now on."""
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    return network


class Literal(nn.Module):
    """A network that runs the literal form, whatever is around it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with literal_afi():
            logits: Tensor = self.network(x)
        return logits
