"""The two contractions that AFI is made of, each in one pass over every feature.

`weighted_sum` makes R of the features, and the gradient of a feature of what its readers were
given; `channel_dots` makes the gradient of the weights. On CUDA each is one Triton kernel
(`afi_search.nn.ops.cuda`), on a CPU one native function (`afi_search.nn.ops.cpu`), and where those
cannot be had a sequence of torch's vectorised operations. All add up in float32 at least, whatever
the features are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from subprocess import SubprocessError
from types import ModuleType

import torch
from torch import Tensor

from afi_search.nn.ops import cpu as native
from afi_search.nn.ops.sums import at_least_float32

WIDE = 32
"""From that many channels on, the channels of a pixel are a run that is fast to compute on."""

BLOCK = 2**20
"""Elements of what is widened at a time, so that they stay in a CPU's cache."""


def weighted_sum(
    features: Sequence[Tensor],
    weights: Tensor,
    start: Tensor | None = None,
    out: Tensor | None = None,
    plus: Tensor | None = None,
) -> Tensor:
    """Return start + plus + sum_j weights[:, j] * features[j], as the features lie in memory.

    Args:
        features: B x C x H x W each, one or more.
        weights: B x len(features) x C, float32 or wider.
        start: B x C, as weights are; nothing where None.
        out: what the result is written to; a new tensor where None. It may be a slice of channels.
        plus: B x C x H x W; it may be any slice of channels. Nothing where None.

    Returns:
        B x C x H x W, of the features' dtype and memory format.
    """
    if out is None:
        out = torch.empty_like(features[0], memory_format=memory_format(features[0]))
    if out.is_cuda and (kernels := _kernels()) is not None:
        if plus is not None:
            features = [plus, *features]
            weights = torch.cat((torch.ones_like(weights[:, :1]), weights), dim=1)
        kernels.weighted_sum_on_cuda(features, weights, start, out)
        return out
    if native.takes(out, *features, *([] if plus is None else [plus])):
        entries = list(zip(features, weights.unbind(1), strict=True))
        native.weighted_sum(entries, out, start, plus)
        return out
    if out.shape[1] < WIDE and not out.is_contiguous(memory_format=memory_format(out)):
        return out.copy_(weighted_sum(features, weights, start, plus=plus))
    runs = _Runs(out)
    target = runs.view(out)
    terms = [
        (runs.of(feature), runs.column(weight))
        for feature, weight in zip(features, weights.unbind(1), strict=True)
    ]
    if plus is not None and start is None:
        start = torch.zeros_like(weights[:, 0])
    first = runs.column(start) if start is not None and plus is None else None
    for images in _blocks(target):
        same = target.dtype == weights.dtype
        total = target[images] if same else torch.empty_like(target[images], dtype=weights.dtype)
        widened = torch.empty_like(total) if not same else total
        if plus is not None and start is not None:
            own = runs.pixels(plus)[images]
            torch.add(own, runs.per_pixel(start)[images], out=total.view(own.shape))
        for j, (feature, weight) in enumerate(terms):
            term = _widen(feature[images], widened)
            if j > 0 or plus is not None:
                total.addcmul_(term, weight[images])
            elif first is None:
                torch.mul(term, weight[images], out=total)
            else:
                torch.addcmul(first[images], term, weight[images], out=total)
        if not same:
            target[images] = total
    return out


def channel_dots(gradient: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Return the sum over the pixels of gradient * features[j], B x len(features) x C.

    Args:
        gradient: B x C x H x W.
        features: of the same shape, one or more.

    Returns:
        float32, or the features' own dtype where that is wider.
    """
    if gradient.is_cuda and (kernels := _kernels()) is not None:
        dots: Tensor = kernels.channel_dots_on_cuda(gradient, features)
        return dots
    dtype = at_least_float32(gradient.dtype)
    shape = (gradient.shape[0], len(features), gradient.shape[1])
    result = torch.empty(shape, dtype=dtype, device=gradient.device)
    if native.takes(gradient, *features):
        native.channel_dots(gradient, features, result)
        return result
    runs = _Runs(gradient)
    factors = [runs.of(feature) for feature in features]
    given = runs.of(gradient)
    for images in _blocks(given):
        product = torch.empty_like(given[images], dtype=dtype)
        factor = given[images].to(dtype)
        for j, feature in enumerate(factors):
            torch.mul(_widen(feature[images], product), factor, out=product)
            result[images, j] = runs.total(product)
    return result


def readable(x: Tensor) -> Tensor:
    """Return a feature or gradient as it is best read many times: a narrow slice is copied."""
    if x.shape[1] >= WIDE:
        return x
    return x.contiguous(memory_format=memory_format(x))


def memory_format(x: Tensor) -> torch.memory_format:
    """Return in which order a feature lies in memory; it may be a slice of channels."""
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format


@cache
def _kernels() -> ModuleType | None:
    """Return Triton's kernels; None, after a warning, where Triton cannot make them run."""
    try:
        from afi_search.nn.ops import cuda as kernels

        one = torch.ones(1, 1, 1, 1, device="cuda")
        kernels.weighted_sum_on_cuda([one], one[0], None, torch.empty_like(one))
    except (ImportError, OSError, RuntimeError, AssertionError, SubprocessError) as error:
        warnings.warn(
            "Triton cannot run its kernels, so AFI takes longer on this GPU; it needs gcc and "
            f"Python's headers ({error})",
            stacklevel=2,
        )
        return None
    return kernels


class _Runs:
    """How a feature is cut into runs of contiguous numbers, B x runs x length or B x C x length.

    With channels last, the channels of a narrow feature's pixel are too few for vector
    instructions: a row of pixels is the run, and a weight per channel is repeated along it.
    """

    def __init__(self, like: Tensor) -> None:
        self._batch, self._channels, height, width = like.shape
        self._last = memory_format(like) == torch.channels_last
        self._repeats = width if self._channels < WIDE else 1
        self._pixels = height * width

    def view(self, x: Tensor) -> Tensor:
        """Return x, B x C x H x W, in runs, in the same memory."""
        if not self._last:
            return x.view(self._batch, self._channels, self._pixels)
        pixels = x.permute(0, 2, 3, 1)
        if self._repeats > 1:
            return pixels.view(self._batch, -1, self._repeats * self._channels)
        return pixels.flatten(1, 2)

    def of(self, x: Tensor) -> Tensor:
        """Return x, B x C x H x W, in runs; it is copied where its memory does not allow a view."""
        if not self._last:
            return x.reshape(self._batch, self._channels, self._pixels)
        run = self._repeats * self._channels
        return x.permute(0, 2, 3, 1).reshape(self._batch, -1, run)

    def pixels(self, x: Tensor) -> Tensor:
        """Return x, pixel by pixel: B x pixels x C, or B x C x pixels where that is how it lies."""
        return x.permute(0, 2, 3, 1).flatten(1, 2) if self._last else x.flatten(2)

    def per_pixel(self, weight: Tensor) -> Tensor:
        """Return a weight per channel, B x C, so that it broadcasts over `pixels`."""
        return weight[:, None, :] if self._last else weight[:, :, None]

    def column(self, weight: Tensor) -> Tensor:
        """Return a weight per channel, B x C, so that it broadcasts over the runs."""
        if not self._last:
            return weight[:, :, None]
        return weight.repeat(1, self._repeats)[:, None, :]

    def total(self, x: Tensor) -> Tensor:
        """Add up runs over the pixels: B x C."""
        if not self._last:
            return x.sum(2)
        return x.sum(1).view(-1, self._repeats, self._channels).sum(1)


def _blocks(runs: Tensor) -> Iterator[slice]:
    images = runs.shape[0]
    step = max(1, BLOCK // max(1, runs[0].numel())) if images else 1
    return (slice(start, start + step) for start in range(0, images, step))


def _widen(x: Tensor, into: Tensor) -> Tensor:
    """Return x in the dtype of `into`, which is overwritten unless that is its own already."""
    return x if x.dtype == into.dtype else into.copy_(x)
