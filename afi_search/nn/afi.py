"""Attentive Feature Integration: what a block reads of the features before it.

Paper: AFINets: Attentive Feature Integration Networks for Image Classification, equations (1) and
(2). Each source feature X_j (B x C' x H x W) is pooled, z_j = GAP(X_j), and scored,
s_j = W2 ReLU(W1 z_j); a softmax over the sources, channel by channel, turns the scores into
weights, and R = sum_j w_j X_j. Neither W1 nor W2 has a bias.

`AFI` scores and weighs, in one of two ways; `Sums` adds up. `afi_search.nn.ops` has a second kind
of `Sums` that does the same in fewer passes over memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Joined(NamedTuple):
    """X_i and R_i side by side, B x (C + C') x H x W, and what later blocks read of them.

    Attributes:
        both: what the second convolution reads.
        pooled: GAP(X_i), B x C.
        feature, integrated: X_i and R_i as sources; they may share the memory of `both`, so
            nothing may be changed in place.
    """

    both: Tensor
    pooled: Tensor
    feature: Any
    integrated: Any


class Sums:
    """What AFI computes on whole features, in torch's own operations.

    Another kind may hold a source in another form than a tensor.
    """

    def source(self, feature: Tensor) -> Any:
        """Return a feature, B x C' x H x W, as one that later blocks may read."""
        return feature

    def pool(self, feature: Tensor, channels: int, readers: int) -> tuple[Any, Tensor]:
        """Return the first channels of a feature as a source, and their means, B x channels.

        Args:
            feature: X_j, B x C x H x W with C >= channels; nothing may change it afterwards.
            channels: C' of the source.
            readers: how many blocks will read it.
        """
        source = feature[:, :channels]
        return source, global_average(source)

    def weighted_sum(self, sources: Sequence[Any], weights: Tensor) -> Tensor:
        """Return R = sum_j w_j X_j, given weights, B x sources x C'."""
        by_source = weights.to(sources[0].dtype)[..., None, None].unbind(1)
        integrated = by_source[0] * sources[0]
        for weight, source in zip(by_source[1:], sources[1:], strict=True):
            integrated = torch.addcmul(integrated, weight, source)
        return integrated

    def join(
        self, before: Tensor, integrated: Tensor, ceiling: float, readers: int, rereaders: int
    ) -> Joined:
        """Activate X_i and concatenate (X_i, R_i).

        Args:
            before: X_i before its activation, B x C x H x W; it may be overwritten.
            integrated: R_i, B x C' x H x W.
            ceiling: X_i is `before`, kept between 0 and this.
            readers, rereaders: how many later blocks read X_i, and R_i.
        """
        feature = rectify_(before, ceiling)
        both = torch.cat((feature, integrated), dim=1)
        return Joined(both, global_average(feature), feature, integrated)


def rectify_(y: Tensor, ceiling: float) -> Tensor:
    """Apply ReLU, or ReLU6 where the ceiling is 6, in place; return the same tensor."""
    return F.relu_(y) if ceiling == torch.inf else F.hardtanh_(y, 0.0, ceiling)


def global_average(feature: Tensor) -> Tensor:
    """GAP: B x C x H x W to B x C, in float32 at least."""
    return feature.mean(dim=(2, 3), dtype=torch.promote_types(feature.dtype, torch.float32))


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
        return widened(torch.bmm(by_scorer, expand.mT))


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which no operation is narrowed."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def widened(scores: Tensor) -> Tensor:
    """Return scores in float32 at least: what is exponentiated and summed needs the range."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


class SoftmaxOverSources(nn.Module):
    """Scores, B x sources x C', to weights; a module, so that a hook can watch them."""

    def forward(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=1)


State = TypeVar("State")


class AFI(nn.Module, ABC, Generic[State]):
    """AFI of one stage: takes its sources one by one and weighs those there are.

    Args:
        channels: C' of the features.
        hidden: units of a scorer's hidden layer.
        readers: how many blocks read, N - 1 for a stage of N blocks.
    """

    rereads: bool
    """Whether an R is read by the next block's AFI."""

    @abstractmethod
    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__()
        self.readers = readers

    @abstractmethod
    def add(self, state: State | None, source: Any, pooled: Tensor, reader: int) -> State:
        """Return the state after one more source.

        Args:
            state: None before any.
            source: X_j.
            pooled: z_j, B x C', in float32 at least.
            reader: the number of the first block that reads it, from 0.
        """

    @abstractmethod
    def read(self, state: State, reader: int) -> tuple[Sequence[Any], Tensor]:
        """Return the sources of a reader, and their weights, B x sources x C'."""

    @abstractmethod
    def carry(self, state: State, integrated: Any) -> State:
        """Return the state updated with R, the weighted sum of what was read last."""

    @abstractmethod
    def count_readers(self, reader: int) -> int:
        """Return how often a source is read whose first reader is that one."""

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

    sources: tuple[Any, ...]
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

    rereads = False

    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__(channels, hidden, readers)
        self.scorers = nn.ModuleList(Scorer(channels, hidden) for _ in range(readers))
        self.softmax = SoftmaxOverSources()

    def add(self, state: Scored | None, source: Any, pooled: Tensor, reader: int) -> Scored:
        sources, scores, reduce, expand = state or self._nothing()
        later = score(pooled, reduce[reader:], expand[reader:])
        with_later = ((*of, one) for of, one in zip(scores[reader:], later.unbind(0), strict=True))
        return Scored((*sources, source), (*scores[:reader], *with_later), reduce, expand)

    def read(self, state: Scored, reader: int) -> tuple[Sequence[Any], Tensor]:
        return state.sources, self.softmax(torch.stack(state.scores[reader], dim=1))

    def carry(self, state: Scored, integrated: Any) -> Scored:
        return state

    def count_readers(self, reader: int) -> int:
        return self.readers - reader

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
        sources: what it is made of: the mean before and the newest source, or that alone.
        weights: of these, B x len(sources) x C'.
        log_total: the logarithm of the sum of the exponentiated scores, B x C'.
        mean: itself, once a reader has made it.
    """

    sources: tuple[Any, ...]
    weights: Tensor
    log_total: Tensor
    mean: Any = None


class StageAFI(AFI[RunningMean]):
    """AFI with one scorer for all blocks of a stage; an extension of the paper.

    All readers give a source the same score, so the softmax over the growing list of sources is a
    running mean: with L the log of the sum of exponentials and a new score s, the softmax of
    (L, s) weighs R and X, and L' = log(e^L + e^s). That is exact, and linear in the number of
    blocks instead of quadratic.
    """

    rereads = True

    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__(channels, hidden, readers)
        self.scorer = Scorer(channels, hidden)

    def add(
        self, state: RunningMean | None, source: Any, pooled: Tensor, reader: int
    ) -> RunningMean:
        scores = self.scorer(pooled)
        if state is None:
            # Exactly one, and written so that the scorer is part of the graph in any stage.
            one = torch.exp(scores - scores)
            return RunningMean((source,), one[:, None], scores)
        both = torch.stack((state.log_total, scores), dim=1)
        weights, log_total = torch.softmax(both, dim=1), torch.logsumexp(both, dim=1)
        return RunningMean((state.mean, source), weights, log_total)

    def read(self, state: RunningMean, reader: int) -> tuple[Sequence[Any], Tensor]:
        return state.sources, state.weights

    def carry(self, state: RunningMean, integrated: Any) -> RunningMean:
        return state._replace(mean=integrated)

    def count_readers(self, reader: int) -> int:
        return 1

    def watched(self) -> nn.Module:
        return self.scorer

    def weights(self, seen: Sequence[Tensor]) -> list[Tensor]:
        counts = range(len(seen) - self.readers + 1, len(seen) + 1)
        sources = torch.stack(tuple(seen), dim=1)
        return [torch.softmax(sources[:, : max(1, count)], dim=1) for count in counts]
