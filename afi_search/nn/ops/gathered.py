"""AFI's sums with the gradient of every feature gathered in one pass.

X_j is read by every later block i: R_i = sum_j w_ij X_j. Left to autograd, each reader makes a
gradient as large as X_j, and autograd adds them up: N^2 / 2 such gradients in a stage of N blocks.
Here `afi::join` returns, beside what the second convolution reads, a pair of stubs for each later
reader: tensors without data, shaped like X_j and like w_ij. A reader takes the feature detached,
and the stubs; its backward returns dR_i and w_ij as the stubs' gradients, which copies nothing, and
join's backward makes of them dX_j = dz_j / HW + sum_i w_ij dR_i + what its own block gives, at
once. All of it travels along autograd's edges, so checkpointing, partial backward passes, DDP and
compilers need nothing besides. Second derivatives are not had this way.

X_j and R_j are kept once, as slices of the buffer that the second convolution reads. Where X_j has
fewer than 32 channels, a strided read of that slice is slow with channels last: it is kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from afi_search.nn.afi import Joined, Sums, global_average
from afi_search.nn.ops.common import at_least_float32, check, empty, in_rows, kernels

NARROW = 32
"""Below that many channels a slice of a channels-last buffer is slow to read."""


class Source(NamedTuple):
    """A feature that later blocks read.

    Attributes:
        feature: B x C' x H x W; detached where there are stubs.
        stubs: of each later reader, B x C' x H x W and B x C'; a reader takes the last pair.
    """

    feature: Tensor
    stubs: list[tuple[Tensor, Tensor]]


class GatheredSums(Sums):
    """Sums whose features' gradients are gathered."""

    def source(self, feature: Tensor) -> Source:
        return Source(feature, [])

    def pool(self, feature: Tensor, channels: int, readers: int) -> tuple[Source, Tensor]:
        source = feature[:, :channels]
        if not torch.is_grad_enabled():  # nothing else keeps the other channels
            source = in_rows(source.contiguous(memory_format=torch.channels_last))
            return Source(source, []), global_average(source)
        pooled, *stubs = _pool(feature, channels, readers)
        return Source(source.detach(), _paired(stubs)), pooled

    def weighted_sum(self, sources: Sequence[Source], weights: Tensor) -> Tensor:
        integrated: Tensor = _weighted_sum(*_read(sources), weights)
        return integrated

    def join(
        self,
        before: Tensor,
        ceiling: float,
        sources: Sequence[Source],
        weights: Tensor | None,
        readers: int,
        rereaders: int,
    ) -> Joined:
        channels, training = before.shape[1], torch.is_grad_enabled()
        # Without gradients nothing keeps the buffer, and X apart lets it go.
        apart = channels < NARROW or not training
        readers, rereaders = readers * training, rereaders * training
        made = _join(before, *_read(sources), weights, ceiling, apart, readers, rereaders)
        both, pooled, feature, *stubs = made
        pairs = _paired(stubs)
        x = feature if apart else both[:, :channels]
        return Joined(
            both,
            pooled,
            Source(x.detach(), pairs[:readers]),
            Source(both[:, channels:].detach(), pairs[readers:]),
        )


def _paired(stubs: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(stubs[::2], stubs[1::2], strict=True))


def _read(sources: Sequence[Source]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return the sources' features and a pair of stubs of each that has any."""
    stubs = [source.stubs.pop() for source in sources if source.stubs]
    return [s.feature for s in sources], [x for x, _ in stubs], [w for _, w in stubs]


def _stubs(feature: Tensor, readers: int) -> list[Tensor]:
    """Return tensors of one number each that look like a feature and its weight, in turn."""
    wide = at_least_float32(feature.dtype)
    shapes = [(feature.shape, feature.dtype), (feature.shape[:2], wide)] * readers
    return [feature.new_empty((), dtype=dtype).expand(shape) for shape, dtype in shapes]


def _given(stubs: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients and weights that a backward pass has brought to the stubs."""
    return (
        [gradient for gradient in stubs[::2] if gradient is not None],
        [weight for weight in stubs[1::2] if weight is not None],
    )


@torch.library.custom_op("afi::pool", mutates_args=())
def _pool(feature: Tensor, channels: int, readers: int) -> list[Tensor]:
    """Return GAP of the first channels, B x channels, and for every reader two stubs."""
    source = feature[:, :channels]
    return [global_average(source), *_stubs(source, readers)]


@_pool.register_fake
def _(feature: Tensor, channels: int, readers: int) -> list[Tensor]:
    source = feature[:, :channels]
    pooled = feature.new_empty(source.shape[:2], dtype=at_least_float32(feature.dtype))
    return [pooled, *_stubs(source, readers)]


def _keep_pooled(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    feature, ctx.channels, _ = inputs
    ctx.save_for_backward(feature)
    ctx.set_materialize_grads(False)


def _pooled_backward(ctx: Any, given: list[Tensor | None]) -> tuple[Any, ...]:
    (feature,) = ctx.saved_tensors
    d_pooled, *left = given
    share = None if d_pooled is None else d_pooled / math.prod(feature.shape[2:])
    d_source = _gather(feature[:, : ctx.channels], None, share, *_given(left), None)
    return F.pad(d_source, (0, 0, 0, 0, 0, feature.shape[1] - ctx.channels)), None, None


_pool.register_autograd(_pooled_backward, setup_context=_keep_pooled)


@torch.library.custom_op("afi::weighted_sum", mutates_args=())
def _weighted_sum(
    features: list[Tensor], stubs: list[Tensor], weight_stubs: list[Tensor], weights: Tensor
) -> Tensor:
    """Return sum_j weights[j] * features[j], B x C x H x W.

    Args:
        features: B x C x H x W each. Those with stubs, the last ones, get no gradient.
        stubs, weight_stubs: of the last features; their gradients are dR and w.
        weights: len(features) x B x C, float32 or wider.
    """
    _check("weighted_sum", features, weights, features[0])
    out = empty(features[0], features[0].shape[1])
    kernels(out).weighted_sum(out, list(map(in_rows, features)), weights.contiguous().unbind())
    return out


def _check(name: str, features: list[Tensor], weights: Tensor | None, like: Tensor) -> None:
    batch, channels = like.shape[0], features[0].shape[1]
    for j, feature in enumerate(features):
        check(
            f"afi::{name}: features[{j}]", feature, (batch, channels, *like.shape[2:]), like.dtype
        )
    if weights is not None:
        wide = at_least_float32(like.dtype)
        check(f"afi::{name}: weights", weights, (len(features), batch, channels), wide)


@_weighted_sum.register_fake
def _(
    features: list[Tensor], stubs: list[Tensor], weight_stubs: list[Tensor], weights: Tensor
) -> Tensor:
    return empty(features[0], features[0].shape[1])


def _keep_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, stubs, _, weights = inputs
    ctx.save_for_backward(weights, *features)
    ctx.stubs = len(stubs)


def _sum_backward(ctx: Any, d_sum: Tensor) -> tuple[Any, ...]:
    weights, *features = ctx.saved_tensors
    return _gradients_of_sum(in_rows(d_sum), features, weights, ctx.stubs)


def _gradients_of_sum(
    d_sum: Tensor, features: list[Tensor], weights: Tensor | None, stubs: int
) -> tuple[list[Tensor | None], list[Tensor], list[Tensor], Tensor | None]:
    """Return the gradients of features, stubs, weight stubs and weights."""
    if weights is None:
        return [d_sum], [], [], None
    if d_sum.shape[1] < NARROW:  # a slice would be read many times, by the dots and by joins
        d_sum = d_sum.contiguous(memory_format=torch.channels_last)
    by_source = weights.contiguous().unbind()
    direct = len(features) - stubs
    d_features = [_gather(d_sum, None, None, [d_sum], [w], None) for w in by_source[:direct]]
    dots = _channel_dots(d_sum, features)
    return [*d_features, *[None] * stubs], [d_sum] * stubs, list(by_source[direct:]), dots


_weighted_sum.register_autograd(_sum_backward, setup_context=_keep_sum)


@torch.library.custom_op("afi::channel_dots", mutates_args=())
def _channel_dots(gradient: Tensor, features: list[Tensor]) -> Tensor:
    """Return the sums over the pixels of gradient * features[j], len(features) x B x C."""
    dots = _dots(gradient, features)
    kernels(dots).channel_dots(dots, in_rows(gradient), list(map(in_rows, features)))
    return dots


@_channel_dots.register_fake
def _dots(gradient: Tensor, features: list[Tensor]) -> Tensor:
    shape = len(features), *gradient.shape[:2]
    return gradient.new_empty(shape, dtype=at_least_float32(gradient.dtype))


@torch.library.custom_op("afi::gather", mutates_args=())
def _gather(
    like: Tensor,
    own: Tensor | None,
    share: Tensor | None,
    gradients: list[Tensor],
    weights: list[Tensor],
    feature: Tensor | None,
    ceiling: float = 0.0,
) -> Tensor:
    """Return own + share + sum_i weights[i] * gradients[i], B x C x H x W.

    Args:
        like: shaped like the result.
        own: X's gradient from its own block; it may be a slice of channels.
        share: what is added in every pixel, B x C.
        gradients, weights: dR_i, B x C x H x W, and w_i, B x C, of the later blocks that read X.
        feature, ceiling: X and where its activation ends; the result is zero where it is at an end.
    """
    out = empty(like, like.shape[1])
    features, by = list(map(in_rows, gradients)), [w.contiguous() for w in weights]
    share = None if share is None else share.contiguous()
    plus, gate = (None if x is None else in_rows(x) for x in (own, feature))
    kernels(out).weighted_sum(out, features, by, share, plus, gate, ceiling)
    return out


@_gather.register_fake
def _(
    like: Tensor,
    own: Tensor | None,
    share: Tensor | None,
    gradients: list[Tensor],
    weights: list[Tensor],
    feature: Tensor | None,
    ceiling: float = 0.0,
) -> Tensor:
    return empty(like, like.shape[1])


@torch.library.custom_op("afi::join", mutates_args=())
def _join(
    before: Tensor,
    features: list[Tensor],
    stubs: list[Tensor],
    weight_stubs: list[Tensor],
    weights: Tensor | None,
    ceiling: float,
    apart: bool,
    readers: int,
    rereaders: int,
) -> list[Tensor]:
    """Return X and R side by side, and what later blocks need of them.

    Args:
        before: X before its activation, B x C x H x W.
        features, stubs, weight_stubs, weights: what R, B x C' x H x W, is the weighted sum of, as
            in `afi::weighted_sum`; without weights it is the one feature itself.
        ceiling: X is `before`, kept between 0 and this.
        apart: whether X is returned by itself, too.
        readers, rereaders: how many later blocks read X, and R.

    Returns:
        (X, R), B x (C + C') x H x W; GAP(X), B x C; X or an empty tensor; and for every reader two
        stubs, those of X first.
    """
    _check("join", features, weights, before)
    made = _joined(
        before, features, stubs, weight_stubs, weights, ceiling, apart, readers, rereaders
    )
    by = None if weights is None else weights.contiguous().unbind()
    read = list(map(in_rows, features))
    both, pooled, feature = made[:3]
    kernels(both).join(in_rows(before), ceiling, read, by, both, pooled, feature if apart else None)
    return made


@_join.register_fake
def _joined(
    before: Tensor,
    features: list[Tensor],
    stubs: list[Tensor],
    weight_stubs: list[Tensor],
    weights: Tensor | None,
    ceiling: float,
    apart: bool,
    readers: int,
    rereaders: int,
) -> list[Tensor]:
    channels, wide = before.shape[1], at_least_float32(before.dtype)
    return [
        empty(before, channels + features[0].shape[1]),
        before.new_empty(before.shape[:2], dtype=wide),
        empty(before, channels) if apart else before.new_empty(0),
        *_stubs(before, readers),
        *_stubs(features[0], rereaders),
    ]


def _keep_joined(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    before, features, stubs, _, weights, ctx.ceiling, apart, ctx.readers, _ = inputs
    both, _, feature, *_ = output
    ctx.channels, ctx.shape, ctx.stubs = before.shape[1], both.shape, len(stubs)
    read = [] if weights is None else [weights, *features]
    ctx.save_for_backward(feature if apart else both, *read)
    ctx.set_materialize_grads(False)


def _joined_backward(ctx: Any, given: list[Tensor | None]) -> tuple[Any, ...]:
    kept, *read = ctx.saved_tensors
    d_both, d_pooled, _, *left = given
    d_both = kept.new_zeros(ctx.shape) if d_both is None else d_both
    x, d_x, d_sum = kept[:, : ctx.channels], d_both[:, : ctx.channels], d_both[:, ctx.channels :]
    share = None if d_pooled is None else d_pooled / math.prod(x.shape[2:])
    of_x, of_r = _given(left[: 2 * ctx.readers]), _given(left[2 * ctx.readers :])
    d_before = _gather(x, d_x, share, *of_x, x, ctx.ceiling)
    if of_r[0]:
        d_sum = _gather(d_sum, d_sum, None, *of_r, None)
    weights, *features = read or [None]
    gradients = _gradients_of_sum(d_sum, features, weights, ctx.stubs)
    return d_before, *gradients, None, None, None, None


_join.register_autograd(_joined_backward, setup_context=_keep_joined)
