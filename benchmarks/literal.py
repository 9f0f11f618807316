"""AFI as equations (1) and (2) read, each operation left to autograd: what ours is measured beside.

Every block pools all its sources anew, multiplies each by its weight and adds up; every product
keeps its feature and makes a gradient of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn.afi import BlockAFI, Reading, Scorer
from afi_search.nn.ops.batch_norm import BatchNorm2d


class LiteralReading(Reading):
    """One operation after the other; every reader pools for itself."""

    def add(self, feature: Tensor) -> None:
        self._sources.append(feature[:, : self._afi.channels])

    def integrate(self) -> Tensor:
        pooled = torch.stack([source.mean(dim=(2, 3)) for source in self._sources])
        scorer = cast(BlockAFI, self._afi).scorers[self._reader]
        weights = torch.softmax(scorer(pooled), dim=0).to(self._sources[0].dtype)
        products = zip(weights[..., None, None].unbind(), self._sources, strict=True)
        zero = torch.zeros((), dtype=weights.dtype, device=weights.device)
        self._reader += 1
        return sum((w * x for w, x in products), start=zero)

    def join(self, before: Tensor, ceiling: float, attention: nn.Module) -> Tensor:
        feature = before.clamp(0, ceiling)
        if is_own := not self._sources:
            self.add(feature)
        both = torch.cat((feature, attention(self.integrate())), dim=1)
        if not is_own:
            self.add(feature)
        return both


def score(scorer: Scorer, pooled: Tensor) -> Tensor:
    """Return the scores, narrowed where autocast narrows."""
    scores: Tensor = scorer.expand(F.relu(scorer.reduce(pooled)))
    return scores


@contextmanager
def literal_afi() -> Iterator[None]:
    """Within it, every network with the block scorer runs the literal form."""
    with (
        patch.object(Scorer, "forward", score),
        patch("afi_search.nn.stage.GatheredReading", LiteralReading),
        patch("afi_search.nn.stage.Reading", LiteralReading),
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
