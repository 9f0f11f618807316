"""Attentive Feature Integration: what a block reads of the features before it.

Paper: AFINets: Attentive Feature Integration Networks for Image Classification, equations (1) and
(2). Each source feature X_j (B x C' x H x W) is pooled, z_j = GAP(X_j), and scored,
s_j = W2 ReLU(W1 z_j); a softmax over the sources, channel by channel, turns the scores into
weights, and R = sum_j w_j X_j. Neither W1 nor W2 has a bias.

There are two ways to score, with one interface, `AFI`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn.integrate import Source, blend, global_average, integrate, pool


class Scorer(nn.Module):
    """s = W2 ReLU(W1 z): pooled features (... x C') to scores of the same shape.

    Scores are exponentiated, so autocast does not narrow them: what it would save is nothing.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        with without_autocast(pooled.device):
            pooled = pooled.to(self.reduce.weight.dtype)
            scores: Tensor = self.expand(F.relu(self.reduce(pooled)))
        return scores


State = TypeVar("State")


class AFI(nn.Module, ABC, Generic[State]):
    """AFI of one stage: takes its features one by one and integrates those there are.

    Args:
        channels: C' of the features.
        hidden: units of a scorer's hidden layer.
        readers: how many blocks read, N - 1 for a stage of N blocks.
    """

    @abstractmethod
    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__()
        self.readers = readers

    @abstractmethod
    def add(self, state: State | None, feature: Tensor) -> State:
        """Return the state after one more source, B x C' x H x W; None is the state before any."""

    @abstractmethod
    def read(self, state: State, reader: int, beside: int = 0) -> Tensor:
        """Return R, B x C' x H x W, as the reader of that number (from 0) integrates it.

        With `beside`, channels of a feature, R may lie where it does in the tensor joined of both.
        """

    @abstractmethod
    def weights(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """Return each reader's weights, B x sources x C', given all that the scorers returned.

        Args:
            scores: the outputs of this stage's scorers in one forward pass, in order.
        """


class BlockAFI(AFI[tuple[Source, ...]]):
    """AFI of a stage as in the paper: each reading block has a scorer of its own.

    A block that has but one source (block 2, and block 3 where the transition block offers none)
    gets weights of exactly 1, whatever its scorer says, so that scorer's gradient is zero. The
    paper counts its parameters; they are kept.
    """

    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__(channels, hidden, readers)
        self.scorers = nn.ModuleList(Scorer(channels, hidden) for _ in range(readers))

    def add(self, state: tuple[Source, ...] | None, feature: Tensor) -> tuple[Source, ...]:
        return (*(state or ()), pool(feature))

    def read(self, state: tuple[Source, ...], reader: int, beside: int = 0) -> Tensor:
        scores = self.scorers[reader](torch.stack([source.pooled for source in state], dim=1))
        return integrate(state, softmax_over_sources(scores), beside)

    def weights(self, scores: Sequence[Tensor]) -> list[Tensor]:
        return [softmax_over_sources(score) for score in scores]


class RunningMean(NamedTuple):
    """R of the sources so far, and the logarithm of the sum of their exponentiated scores."""

    integrated: Tensor
    log_total: Tensor


class StageAFI(AFI[RunningMean]):
    """AFI with one scorer for all blocks of a stage; an extension of the paper.

    All readers give a source the same score, so the softmax over the growing list of sources is a
    running mean: with L the log of the sum of exponentials, a new score s has the weight
    sigmoid(s - L), R' = R + weight (X - R) and L' = logaddexp(L, s). That is exact, and linear in
    the number of blocks instead of quadratic.
    """

    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__(channels, hidden, readers)
        self.scorer = Scorer(channels, hidden)

    def add(self, state: RunningMean | None, feature: Tensor) -> RunningMean:
        score = at_least_float32(self.scorer(global_average(feature)))
        if state is None:
            # Exactly one, and written so that the scorer is part of the graph in any stage.
            one = torch.exp(score - score)
            return RunningMean(blend(one[:, None], feature), score)
        gain = score - state.log_total
        weights = torch.stack((torch.sigmoid(-gain), torch.sigmoid(gain)), dim=1)
        return RunningMean(
            blend(weights, state.integrated, feature), torch.logaddexp(state.log_total, score)
        )

    def read(self, state: RunningMean, reader: int, beside: int = 0) -> Tensor:
        return state.integrated

    def weights(self, scores: Sequence[Tensor]) -> list[Tensor]:
        counts = range(len(scores) - self.readers + 1, len(scores) + 1)
        sources = torch.stack(tuple(scores), dim=1)
        return [softmax_over_sources(sources[:, : max(1, count)]) for count in counts]


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which no operation is narrowed."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def at_least_float32(scores: Tensor) -> Tensor:
    """Widen half-precision scores: what is exponentiated and summed needs the range."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def softmax_over_sources(scores: Tensor) -> Tensor:
    """Turn scores, B x sources x C', into weights that sum to one over the sources."""
    return torch.softmax(at_least_float32(scores), dim=1)
