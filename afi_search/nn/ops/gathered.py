"""AFI's sums with the gradient of every feature gathered in one pass.

X_j is read by every later block i: R_i = sum_j w_ij X_j. Left to autograd, each reader makes a
gradient as large as X_j, and autograd adds them up: N^2 / 2 such gradients in a stage of N blocks.
Here `afi::join` returns, beside what the second convolution reads, a pair of stubs for each later
reader: tensors without data, shaped like X_j and like w_ij. `afi::weighted_sum` takes the feature
detached, and the stubs; its backward returns dR_i and w_ij as the stubs' gradients, which copies
nothing, and join's backward makes of them dX_j = dz_j / HW + sum_i w_ij dR_i + what its own block
gives, at once. All of it travels along autograd's edges, so checkpointing, partial backward passes,
DDP and compilers need nothing besides. Second derivatives are not had this way.

X_j and R_j are kept once, as slices of the buffer that the second convolution reads. Where X_j has
fewer than 32 channels, a strided read of that slice is slow with channels last: it is kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from afi_search.nn.afi import Joined, Sums, global_average
from afi_search.nn.ops import cpu
from afi_search.nn.ops.common import at_least_float32, check, empty, memory_format
from afi_search.nn.ops.contractions import channel_dots, weighted_sum

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
        pooled, *stubs = _pool(feature, channels, readers if torch.is_grad_enabled() else 0)
        source = feature.detach()[:, :channels]
        if not torch.is_grad_enabled():  # nothing else keeps the other channels
            source = source.contiguous(memory_format=memory_format(feature))
        return Source(source, _paired(stubs)), pooled

    def weighted_sum(self, sources: Sequence[Source], weights: Tensor) -> Tensor:
        stubs = [source.stubs.pop() for source in sources if source.stubs]
        integrated: Tensor = _weighted_sum(
            [source.feature for source in sources],
            weights,
            [feature for feature, _ in stubs],
            [weight for _, weight in stubs],
        )
        return integrated

    def join(
        self, before: Tensor, integrated: Tensor, ceiling: float, readers: int, rereaders: int
    ) -> Joined:
        channels = before.shape[1]
        training = torch.is_grad_enabled()
        # Without gradients nothing keeps the buffer, and X apart lets it go.
        apart = channels < NARROW or not training
        made = _join(before, integrated, ceiling, apart, readers * training, rereaders * training)
        both, pooled, feature, *stubs = made
        pairs = _paired(stubs)
        of_x, of_r = pairs[: readers * training], pairs[readers * training :]
        x = feature if apart else both[:, :channels]
        r = both[:, channels:] if training else integrated
        return Joined(both, pooled, Source(x.detach(), of_x), Source(r.detach(), of_r))


@torch.library.custom_op("afi::weighted_sum", mutates_args=())
def _weighted_sum(
    features: list[Tensor], weights: Tensor, stubs: list[Tensor], weight_stubs: list[Tensor]
) -> Tensor:
    """Return sum_j weights[:, j] * features[j], B x C x H x W.

    Args:
        features: B x C x H x W each. Those with stubs, the last ones, get no gradient.
        weights: B x len(features) x C, float32 or wider.
        stubs, weight_stubs: of the last features; their gradients are dR and w.
    """
    first = features[0]
    for j, feature in enumerate(features):
        check(f"afi::weighted_sum: features[{j}]", feature, first.shape, first.dtype)
    shape = (first.shape[0], len(features), first.shape[1])
    check("afi::weighted_sum: weights", weights, shape, at_least_float32(first.dtype))
    return weighted_sum(features, weights.unbind(1))


@_weighted_sum.register_fake
def _(
    features: list[Tensor], weights: Tensor, stubs: list[Tensor], weight_stubs: list[Tensor]
) -> Tensor:
    return empty(features[0], features[0].shape[1])


@torch.library.custom_op("afi::weighted_sum_backward", mutates_args=())
def _weighted_sum_backward(
    d_sum: Tensor, features: list[Tensor], weights: Tensor, direct: int
) -> list[Tensor]:
    """Return the gradients of the weights and of the first `direct` features."""
    return [
        channel_dots(d_sum, features),
        *(weighted_sum([d_sum], [weights[:, j]]) for j in range(direct)),
    ]


@_weighted_sum_backward.register_fake
def _(d_sum: Tensor, features: list[Tensor], weights: Tensor, direct: int) -> list[Tensor]:
    return [torch.empty_like(weights), *(empty(d_sum, d_sum.shape[1]) for _ in range(direct))]


def _keep_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, weights, stubs, _ = inputs
    ctx.save_for_backward(weights, *features)
    ctx.stubs = len(stubs)


def _sum_backward(ctx: Any, d_sum: Tensor) -> tuple[Any, ...]:
    weights, *features = ctx.saved_tensors
    direct = len(features) - ctx.stubs
    if d_sum.shape[1] < NARROW:  # a slice would be read many times, by the dots and by joins
        d_sum = d_sum.contiguous(memory_format=memory_format(features[0]))
    d_weights, *d_direct = _weighted_sum_backward(d_sum, features, weights, direct)
    d_features = [*d_direct, *[None] * ctx.stubs]
    return d_features, d_weights, [d_sum] * ctx.stubs, list(weights.unbind(1)[direct:])


_weighted_sum.register_autograd(_sum_backward, setup_context=_keep_sum)


@torch.library.custom_op("afi::pool", mutates_args=())
def _pool(feature: Tensor, channels: int, readers: int) -> list[Tensor]:
    """Return GAP of the first channels, B x channels, and for every reader two stubs."""
    source = feature[:, :channels]
    return [global_average(source), *_stubs(source, readers)]


@_pool.register_fake
def _(feature: Tensor, channels: int, readers: int) -> list[Tensor]:
    source = feature[:, :channels]
    pooled = source.new_empty(source.shape[:2], dtype=at_least_float32(source.dtype))
    return [pooled, *_stubs(source, readers)]


@torch.library.custom_op("afi::pool_backward", mutates_args=())
def _pool_backward(
    d_pooled: Tensor, like: Tensor, channels: int, gradients: list[Tensor], weights: list[Tensor]
) -> Tensor:
    """Return the feature's gradient, given those of what pool returned."""
    d_feature = torch.zeros_like(like)
    share = d_pooled / math.prod(like.shape[2:])
    d_source = d_feature[:, :channels]
    if gradients:
        weighted_sum(gradients, weights, share, out=d_source)
    else:
        d_source += share[:, :, None, None]
    return d_feature


@_pool_backward.register_fake
def _(
    d_pooled: Tensor, like: Tensor, channels: int, gradients: list[Tensor], weights: list[Tensor]
) -> Tensor:
    return torch.empty_like(like)


def _keep_pooled(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    feature, ctx.channels, _ = inputs
    ctx.save_for_backward(feature)
    ctx.set_materialize_grads(False)


def _pooled_backward(ctx: Any, given: list[Tensor | None]) -> tuple[Any, ...]:
    (feature,) = ctx.saved_tensors
    d_pooled, *left = given
    if d_pooled is None:
        d_pooled = feature.new_zeros(feature.shape[0], ctx.channels)
    return _pool_backward(d_pooled, feature, ctx.channels, *_given(left)), None, None


_pool.register_autograd(_pooled_backward, setup_context=_keep_pooled)


def _paired(stubs: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(stubs[::2], stubs[1::2], strict=True))


def _given(stubs: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients and weights that a backward pass has brought to the stubs."""
    return (
        [gradient for gradient in stubs[::2] if gradient is not None],
        [weight for weight in stubs[1::2] if weight is not None],
    )


@torch.library.custom_op("afi::join", mutates_args=())
def _join(
    before: Tensor, integrated: Tensor, ceiling: float, apart: bool, readers: int, rereaders: int
) -> list[Tensor]:
    """Return X and R side by side, and what later blocks need of them.

    Args:
        before: X before its activation, B x C x H x W.
        integrated: R, B x C' x H x W.
        ceiling: X is `before`, kept between 0 and this.
        apart: whether X is returned by itself, too.
        readers, rereaders: how many later blocks read X, and R.

    Returns:
        (X, R), B x (C + C') x H x W; GAP(X), B x C; X or an empty tensor; and for every reader two
        stubs, those of X first.
    """
    channels = before.shape[1]
    shape = (before.shape[0], integrated.shape[1], *before.shape[2:])
    check("afi::join: integrated", integrated, shape, before.dtype)
    made = _joined(before, integrated, ceiling, apart, readers, rereaders)
    both, pooled, feature = made[:3]
    if cpu.takes(before, integrated):
        copies = cpu.feature(both, 0, channels), cpu.feature(feature if apart else None)
        beside = cpu.feature(integrated), cpu.feature(both, channels)
        given = cpu.feature(before), *copies, cpu.array(pooled), *beside
        cpu.run("join", before, *given, reals=[ceiling])
        return made
    x = before.clamp(0, ceiling)
    torch.cat((x, integrated), dim=1, out=both)
    pooled.copy_(global_average(x))
    if apart:
        feature.copy_(x)
    return made


@_join.register_fake
def _joined(
    before: Tensor, integrated: Tensor, ceiling: float, apart: bool, readers: int, rereaders: int
) -> list[Tensor]:
    channels, wide = before.shape[1], at_least_float32(before.dtype)
    feature = empty(before, channels) if apart else before.new_empty(0)
    return [
        empty(before, channels + integrated.shape[1]),
        before.new_empty(before.shape[:2], dtype=wide),
        feature,
        *_stubs(before, readers),
        *_stubs(integrated, rereaders),
    ]


def _stubs(feature: Tensor, readers: int) -> list[Tensor]:
    """Return tensors of one number each that look like a feature and its weight, in turn."""
    wide = at_least_float32(feature.dtype)
    shapes = [(feature.shape, feature.dtype), (feature.shape[:2], wide)] * readers
    return [feature.new_empty((), dtype=dtype).expand(shape) for shape, dtype in shapes]


@torch.library.custom_op("afi::gather", mutates_args=())
def _gather(
    own: Tensor,
    share: Tensor | None,
    gradients: list[Tensor],
    weights: list[Tensor],
    feature: Tensor | None,
    ceiling: float,
) -> Tensor:
    """Return the gradient of X before its activation, or of R.

    Args:
        own: from its own block, B x C x H x W; it may be a slice of channels.
        share: what is added in every pixel, B x C.
        gradients, weights: dR_i and w_i of the later blocks that read it.
        feature, ceiling: X and where its activation ends; None for R.
    """
    gate = None if feature is None else (feature, ceiling)
    return weighted_sum(gradients, weights, share, own, gate)


@_gather.register_fake
def _(
    own: Tensor,
    share: Tensor | None,
    gradients: list[Tensor],
    weights: list[Tensor],
    feature: Tensor | None,
    ceiling: float,
) -> Tensor:
    return empty(own, own.shape[1])


def _keep_joined(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    before, _, ctx.ceiling, apart, ctx.readers, _ = inputs
    both, _, feature, *_ = output
    ctx.channels = before.shape[1]
    ctx.save_for_backward(feature if apart else both)
    ctx.shape = both.shape
    ctx.set_materialize_grads(False)


def _joined_backward(ctx: Any, given: list[Tensor | None]) -> tuple[Any, ...]:
    (kept,) = ctx.saved_tensors
    d_both, d_pooled, _, *left = given
    if d_both is None:
        d_both = kept.new_zeros(ctx.shape)
    channels = ctx.channels
    share = None if d_pooled is None else d_pooled / math.prod(kept.shape[2:])
    read, again = _given(left[: 2 * ctx.readers]), _given(left[2 * ctx.readers :])
    d_before = _gather(d_both[:, :channels], share, *read, kept[:, :channels], ctx.ceiling)
    d_integrated = d_both[:, channels:]
    if again[0]:
        d_integrated = _gather(d_integrated, None, *again, None, 0.0)
    return d_before, d_integrated, None, None, None, None


_join.register_autograd(_joined_backward, setup_context=_keep_joined)
