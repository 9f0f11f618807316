"""Attentive Feature Integration: what a block reads of the features before it.

Paper: AFINets: Attentive Feature Integration Networks for Image Classification, equations (1) and
(2). Each source feature X_j (B x C' x H x W) is pooled, z_j = GAP(X_j), and scored,
s_j = W2 ReLU(W1 z_j); a softmax over the sources, channel by channel, turns the scores into
weights, and R = sum_j w_j X_j. Neither W1 nor W2 has a bias.

`AFI` scores and weighs, in one of two ways; `Reading` carries the sources from block to block.
`afi_search.nn.ops` has a second kind of `Reading` that does the same in fewer kernels, on a GPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from afi_search.nn.ops.scores import weighed


def global_average(feature: Tensor) -> Tensor:
    """GAP: B x H x W x C to B x C, in float32 at least."""
    return feature.mean(dim=(1, 2), dtype=torch.promote_types(feature.dtype, torch.float32))


def rectify_(y: Tensor, ceiling: float) -> Tensor:
    """Apply ReLU, or ReLU6 where the ceiling is 6, in place; return the same tensor."""
    return F.relu_(y) if ceiling == torch.inf else F.hardtanh_(y, 0.0, ceiling)


def rows(feature: Tensor, channels: int) -> Tensor:
    """The first channels of B x C x H x W as B x H x (W * channels), pixels side by side.

    So torch's loops are as long as a row, and not as few channels. Channels are made the last
    dimension before they are sliced, so that gradients lie as features do.
    """
    return feature.permute(0, 2, 3, 1)[..., :channels].flatten(2)


def pixels(x: Tensor, channels: int) -> Tensor:
    """Rows, B x H x (W * C), to pixels, B x H x W x C."""
    return x.unflatten(2, (-1, channels))


def weighted_sum(sources: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return R = sum_j w_j X_j in rows, given X_j in rows and weights, sources x B x C'."""
    width = sources[0].shape[2] // weights.shape[2]
    by_source = weights.to(sources[0].dtype)[:, :, None, None].expand(-1, -1, -1, width, -1)
    (w, x), *rest = zip(by_source.flatten(3), sources, strict=True)
    total = w * x
    for w, x in rest:
        total = torch.addcmul(total, w, x)  # in place, vmap would have no rule for it
    return total


class Scorer(nn.Module):
    """s = W2 ReLU(W1 z): pooled features, ... x C', to scores of the same shape.

    Scores are exponentiated, so autocast does not narrow them: what it would save is nothing.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        with nullcontext() if pooled.is_meta else torch.autocast(pooled.device.type, enabled=False):
            z = pooled.to(self.reduce.weight.dtype)
            scores: Tensor = self.expand(F.relu(self.reduce(z)))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))


class AFI(nn.Module, ABC):
    """The scorers of a stage.

    Args:
        channels: C' of the features.
        hidden: units of a scorer's hidden layer.
        readers: how many blocks read, N - 1 for a stage of N blocks.
    """

    rereads: bool
    """Whether a block reads the R before it in the place of what that R was made of."""

    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__()
        self.channels = channels
        self.readers = readers

    @abstractmethod
    def note(self, pooled: Tensor) -> Tensor:
        """Return what of a source its readers weigh it by, B x C', given z, at least float32."""

    @abstractmethod
    def forward(self, reader: int, notes: Tensor) -> tuple[Tensor, Tensor]:
        """Return a reader's weights, sources x B x C', and the notes for the next reader.

        Readers are numbered from 0; notes are what is noted of its sources, sources x B x C'.
        """

    def watched(self, seen: list[Tensor]) -> RemovableHandle:
        """From now on, append the weights that readers give all features, sources x B x C'."""

        def note(_afi: nn.Module, _inputs: object, given: tuple[Tensor, Tensor]) -> None:
            weights, _ = given
            if self.rereads and seen:  # the first source is the R before, a sum by itself
                weights = torch.cat((weights[:1] * seen[-1], weights[1:]))
            seen.append(weights)

        return self.register_forward_hook(note)


class BlockAFI(AFI):
    """AFI of a stage as in the paper: each reading block has a scorer of its own.

    A block that has but one source (block 2, and block 3 where the transition block offers none)
    gets weights of exactly 1, whatever its scorer says, so that scorer's gradient is zero. The
    paper counts its parameters; they are kept.
    """

    rereads = False

    def __init__(self, channels: int, hidden: int, readers: int) -> None:
        super().__init__(channels, hidden, readers)
        self.scorers = nn.ModuleList(Scorer(channels, hidden) for _ in range(readers))

    def note(self, pooled: Tensor) -> Tensor:
        return pooled

    def forward(self, reader: int, notes: Tensor) -> tuple[Tensor, Tensor]:
        scorer = cast(Scorer, self.scorers[reader])
        at_once = weighed(scorer.reduce.weight, scorer.expand.weight, notes)
        return at_once or (torch.softmax(scorer(notes), dim=0), notes)


class StageAFI(AFI):
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

    def note(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.scorer(pooled)
        return scores

    def forward(self, reader: int, notes: Tensor) -> tuple[Tensor, Tensor]:
        logs = torch.log_softmax(notes, dim=0)
        return logs.exp(), (notes - logs)[:1]  # which is the same of each source


class Reading:
    """What the blocks of a stage read in one forward pass, one after the other."""

    def __init__(self, afi: AFI) -> None:
        self._afi = afi
        self._sources: list[Any] = []  # in rows
        self._notes: Tensor | None = None
        self._reader = 0

    def add(self, feature: Tensor) -> None:
        """Take the first C' channels of X_j, B x C x H x W, as one source more."""
        self._pool(rows(feature, self._afi.channels))

    def integrate(self) -> Tensor:
        """Return the next reader's R, B x C' x H x W."""
        integrated = weighted_sum(*self._weigh())
        self._end(integrated)
        return pixels(integrated, self._afi.channels).permute(0, 3, 1, 2)

    def join(self, before: Tensor, ceiling: float, attention: nn.Module) -> Tensor:
        """Return (X_i, A(R_i)), B x (C + C') x H x W.

        Args:
            before: X_i before its activation, B x C x H x W, which is overwritten.
            ceiling: where the activation ends.
            attention: A, B x C' x H x W to the same.
        """
        x = rows(rectify_(before, ceiling), before.shape[1])
        is_own = not self._sources  # what there is to read is the block's own feature
        if is_own:
            self._pool(x)
        attended = attention(self.integrate())
        if not is_own and self._is_read():
            self._pool(x)
        both = pixels(x, before.shape[1]), attended.permute(0, 2, 3, 1)
        return torch.cat(both, dim=3).permute(0, 3, 1, 2)

    def _pool(self, x: Tensor) -> None:
        self._take(x, global_average(pixels(x, self._afi.channels)))

    def _take(self, source: Any, pooled: Tensor) -> None:
        note = self._afi.note(pooled)[None]
        self._sources.append(source)
        self._notes = note if self._notes is None else torch.cat((self._notes, note))

    def _weigh(self) -> tuple[list[Any], Tensor]:
        """Return the next reader's sources and their weights, sources x B x C'."""
        assert self._notes is not None
        weights, self._notes = self._afi(self._reader, self._notes)
        return self._sources, weights

    def _end(self, integrated: Any) -> None:
        """Take a reader's R; sources are let go of as soon as nothing reads them any more."""
        self._reader += 1
        if not self._is_read():
            self._sources = []
        elif self._afi.rereads:
            self._sources = [integrated]

    def _is_read(self) -> bool:
        """Return whether a block is left to read."""
        return self._reader < self._afi.readers
