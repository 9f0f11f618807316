"""AFI as equations (1) and (2) read, each operation left to autograd: what ours is measured beside.

Every block pools all its sources anew, multiplies each by its weight and adds up; every product
keeps its feature and makes a gradient of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn.afi import BlockAFI, Joined, Reading, Scorer, Source, Sums
from afi_search.nn.ops.batch_norm import BatchNorm2d


def add(reading: Reading, source: Source, pooled: Tensor) -> None:
    """Take one source more; nothing is noted of it."""
    reading._sources.append(source)


def weigh(reading: Reading) -> tuple[list[Source], Tensor]:
    """Pool all features so far, and score them: every reader does."""
    pooled = torch.stack([source.feature.mean(dim=(2, 3)) for source in reading._sources])
    scorer = cast(BlockAFI, reading._afi).scorers[reading._reader]
    return reading._sources, torch.softmax(scorer(pooled), dim=0)


def score(scorer: Scorer, pooled: Tensor) -> Tensor:
    """Return the scores, narrowed where autocast narrows."""
    scores: Tensor = scorer.expand(F.relu(scorer.reduce(pooled)))
    return scores


class LiteralSums(Sums):
    """One operation after the other; every reader pools for itself."""

    def pool(self, feature: Tensor, channels: int, readers: int) -> tuple[Source, Tensor]:
        source = feature[:, :channels]
        return Source(source), source

    def weighted_sum(self, sources: Sequence[Source], weights: Tensor) -> Tensor:
        features = [source.feature for source in sources]
        zero = torch.zeros((), dtype=features[0].dtype, device=features[0].device)
        by_source = weights.to(zero.dtype)[..., None, None].unbind()
        return sum((w * x for w, x in zip(by_source, features, strict=True)), start=zero)

    def join(
        self,
        before: Tensor,
        ceiling: float,
        sources: Sequence[Source],
        weights: Tensor | None,
        readers: int,
        rereaders: int,
    ) -> Joined:
        feature = before.clamp(0, ceiling)
        integrated = sources[0].feature if weights is None else self.weighted_sum(sources, weights)
        both = torch.cat((feature, integrated), dim=1)
        return Joined(both, feature, Source(feature), Source(integrated))


@contextmanager
def literal_afi() -> Iterator[None]:
    """Within it, every network with the block scorer runs the literal form."""
    with (
        patch.object(Reading, "_add", add),
        patch.object(Reading, "weigh", weigh),
        patch.object(Scorer, "forward", score),
        patch("afi_search.nn.stage.GatheredSums", LiteralSums),
        patch("afi_search.nn.stage.Sums", LiteralSums),
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
