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
from typing import Generic, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn.ops.integrate import Reading
from afi_search.nn.ops.source import Lent, Source
from afi_search.nn.ops.sums import at_least_float32


class Scorer(nn.Module):
    """s = W2 ReLU(W1 z): a pooled feature, B x C', to scores of the same shape."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        return score(pooled, self.reduce.weight[None], self.expand.weight[None])[0]


def score(pooled: Tensor, reduce: Tensor, expand: Tensor) -> Tensor:
    """Return what one or more scorers make of a pooled feature, scorers x B x C'.

    Scores are exponentiated, so autocast does not narrow them: what it would save is nothing.

    Args:
        pooled: B x C'.
        reduce: W1 of each scorer, scorers x hidden x C'.
        expand: W2 of each, scorers x C' x hidden.
    """
    with without_autocast(pooled.device):
        hidden = F.relu(F.linear(pooled.to(reduce.dtype), reduce.flatten(0, 1)))
        by_scorer = hidden.unflatten(1, reduce.shape[:2]).transpose(0, 1)
        return torch.bmm(by_scorer, expand.mT)


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
    def add(self, state: State | None, source: Source, reader: int) -> State:
        """Return the state after one more source.

        Args:
            state: None before any.
            source: of C' channels.
            reader: the number of the first that reads it.
        """

    @abstractmethod
    def read(self, state: State, reader: int) -> Reading:
        """Return what the reader of that number (from 0) integrates."""

    @abstractmethod
    def carry(self, state: State, integrated: Lent) -> State:
        """Return the state after a reader has made its R, B x C' x H x W, of its reading."""

    @abstractmethod
    def watched(self) -> nn.Module:
        """Return the module whose outputs in a forward pass tell the weights."""

    @abstractmethod
    def weights(self, seen: Sequence[Tensor]) -> list[Tensor]:
        """Return each reader's weights, B x sources x C'.

        Args:
            seen: the outputs of `watched` in one forward pass, in order.
        """


class Scored(NamedTuple):
    """The sources so far, and what their scores are for every reader, B x C' each.

    Attributes:
        sources: from the oldest.
        scores: for each reader those of the sources that it reads.
        reduce, expand: the scorers' matrices, readers x hidden x C' and readers x C' x hidden.
    """

    sources: tuple[Source, ...]
    scores: tuple[tuple[Tensor, ...], ...]
    reduce: Tensor
    expand: Tensor


class BlockAFI(AFI[Scored]):
    """AFI of a stage as in the paper: each reading block has a scorer of its own.

    A source is scored for all its readers at once, when it comes.

    A block that has but one source (block 2, and block 3 where the transition block offers none)
    gets weights of exactly 1, whatever its scorer says, so that scorer's gradient is zero. The
    paper counts its parameters; they are kept.
    """

    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__(channels, hidden, readers)
        self.scorers = nn.ModuleList(Scorer(channels, hidden) for _ in range(readers))
        self.softmax = SoftmaxOverSources()

    def add(self, state: Scored | None, source: Source, reader: int) -> Scored:
        sources, scores, reduce, expand = state or self._nothing()
        later = score(source.pooled, reduce[reader:], expand[reader:])
        with_later = ((*of, one) for of, one in zip(scores[reader:], later.unbind(0), strict=True))
        return Scored((*sources, source), (*scores[:reader], *with_later), reduce, expand)

    def read(self, state: Scored, reader: int) -> Reading:
        weights = self.softmax(torch.stack(state.scores[reader], dim=1))
        return Reading(tuple(source.lent for source in state.sources), weights)

    def carry(self, state: Scored, integrated: Lent) -> Scored:
        return state

    def watched(self) -> nn.Module:
        return self.softmax

    def weights(self, seen: Sequence[Tensor]) -> list[Tensor]:
        return list(seen)

    def _nothing(self) -> Scored:
        scorers = [cast(Scorer, scorer) for scorer in self.scorers]
        reduce = torch.stack([scorer.reduce.weight for scorer in scorers])
        expand = torch.stack([scorer.expand.weight for scorer in scorers])
        return Scored((), ((),) * self.readers, reduce, expand)


class RunningMean(NamedTuple):
    """The mean of the sources so far.

    Attributes:
        reading: what it is made of.
        log_total: the logarithm of the sum of the exponentiated scores, B x C'.
        mean: itself, once a reader has made it.
    """

    reading: Reading
    log_total: Tensor
    mean: Lent | None = None


class StageAFI(AFI[RunningMean]):
    """AFI with one scorer for all blocks of a stage; an extension of the paper.

    All readers give a source the same score, so the softmax over the growing list of sources is a
    running mean: with L the log of the sum of exponentials and a new score s, the softmax of
    (L, s) weighs R and X, and L' = log(e^L + e^s). That is exact, and linear in the number of
    blocks instead of quadratic.
    """

    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__(channels, hidden, readers)
        self.scorer = Scorer(channels, hidden)

    def add(self, state: RunningMean | None, source: Source, reader: int) -> RunningMean:
        scores = widened(self.scorer(source.pooled))
        if state is None:
            # Exactly one, and written so that the scorer is part of the graph in any stage.
            one = torch.exp(scores - scores)
            return RunningMean(Reading((source.lent,), one[:, None]), scores)
        assert state.mean is not None, "every source is read before the next one comes"
        both = torch.stack((state.log_total, scores), dim=1)
        reading = Reading((state.mean, source.lent), torch.softmax(both, dim=1))
        return RunningMean(reading, torch.logsumexp(both, dim=1))

    def read(self, state: RunningMean, reader: int) -> Reading:
        return state.reading

    def carry(self, state: RunningMean, integrated: Lent) -> RunningMean:
        return state._replace(mean=integrated)

    def watched(self) -> nn.Module:
        return self.scorer

    def weights(self, seen: Sequence[Tensor]) -> list[Tensor]:
        counts = range(len(seen) - self.readers + 1, len(seen) + 1)
        sources = torch.stack(tuple(seen), dim=1)
        return [softmax_over_sources(sources[:, : max(1, count)]) for count in counts]


class SoftmaxOverSources(nn.Module):
    """Scores, B x sources x C', to weights; a module, so that a hook can watch them."""

    def forward(self, scores: Tensor) -> Tensor:
        return softmax_over_sources(scores)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which no operation is narrowed."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def widened(scores: Tensor) -> Tensor:
    """Return scores in float32 at least: what is exponentiated and summed needs the range."""
    return scores.to(at_least_float32(scores.dtype))


def softmax_over_sources(scores: Tensor) -> Tensor:
    """Turn scores, B x sources x C', into weights that sum to one over the sources."""
    return torch.softmax(widened(scores), dim=1)
