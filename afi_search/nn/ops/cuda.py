"""AFI's two contractions as Triton kernels: one launch, whatever the number of features.

The features stay where they are. A kernel takes their addresses and strides, filled up to a power
of two, so that few variants are compiled. Sums are float32, or float64 for features that are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from afi_search.nn.ops.common import at_least_float32

TILE = 2048
"""Numbers of one feature that a program works on at a time."""
WIDEST = 128
"""Channels of a tile at most."""


@triton.jit
def _weighted_sum(  # type: ignore[no-untyped-def]
    out,
    features,
    weights,
    start,
    out_strides,
    strides,
    count,
    pixels,
    channels,
    slots: tl.constexpr,
    has_start: tl.constexpr,
    sum_dtype: tl.constexpr,
    tile_pixels: tl.constexpr,
    tile_channels: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * tile_pixels + tl.arange(0, tile_pixels)[:, None]
    c = tl.program_id(2) * tile_channels + tl.arange(0, tile_channels)[None, :]
    inside = (p < pixels) & (c < channels)
    total = tl.zeros((tile_pixels, tile_channels), sum_dtype)
    if has_start:
        total += tl.load(start + image * channels + c, c < channels, other=0.0)
    for j in tl.static_range(slots):
        if j < count:
            at = image * strides[3 * j] + p * strides[3 * j + 1] + c * strides[3 * j + 2]
            feature = tl.load(features[j] + at, inside, other=0.0).to(sum_dtype)
            at = (image * count + j) * channels + c
            total += feature * tl.load(weights + at, c < channels, other=0.0)
    at = image * out_strides[0] + p * out_strides[1] + c * out_strides[2]
    tl.store(out + at, total.to(out.dtype.element_ty), inside)


@triton.jit
def _channel_dots(  # type: ignore[no-untyped-def]
    out,
    gradient,
    features,
    gradient_strides,
    strides,
    count,
    pixels,
    channels,
    slots: tl.constexpr,
    sum_dtype: tl.constexpr,
    tile_pixels: tl.constexpr,
    tile_channels: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1)
    column = tl.program_id(2) * tile_channels + tl.arange(0, tile_channels)
    c = column[None, :]
    address = features[0].to(tl.int64)
    over_image, over_pixel, over_channel = strides[0], strides[1], strides[2]
    for k in tl.static_range(1, slots):
        address = tl.where(j == k, features[k].to(tl.int64), address)
        over_image = tl.where(j == k, strides[3 * k], over_image)
        over_pixel = tl.where(j == k, strides[3 * k + 1], over_pixel)
        over_channel = tl.where(j == k, strides[3 * k + 2], over_channel)
    feature = address.to(gradient.dtype)
    total = tl.zeros((tile_pixels, tile_channels), sum_dtype)
    for begin in range(0, pixels, tile_pixels):
        p = begin + tl.arange(0, tile_pixels)[:, None]
        inside = (p < pixels) & (c < channels)
        at = image * gradient_strides[0] + p * gradient_strides[1] + c * gradient_strides[2]
        given = tl.load(gradient + at, inside, other=0.0).to(sum_dtype)
        at = image * over_image + p * over_pixel + c * over_channel
        total += given * tl.load(feature + at, inside, other=0.0).to(sum_dtype)
    at = (image * count + j) * channels + column
    tl.store(out + at, tl.sum(total, 0), column < channels)


def weighted_sum(
    features: Sequence[Tensor],
    weights: Sequence[Tensor],
    start: Tensor | None,
    plus: Tensor | None,
    out: Tensor,
) -> None:
    """Write to `out` what `contractions.weighted_sum` returns where there is no gate."""
    if plus is not None:
        wide = at_least_float32(out.dtype)
        one = torch.ones(out.shape[:2], dtype=wide, device=out.device)
        features, weights = [plus, *features], [one, *weights]
    features = [_with_pixels_in_line(feature) for feature in features]
    stacked = torch.stack(tuple(weights), dim=1)
    tile_pixels, tile_channels = _tile(out)
    batch, channels, height, width = out.shape
    tiles = triton.cdiv(height * width, tile_pixels), triton.cdiv(channels, tile_channels)
    _weighted_sum[batch, *tiles](
        out,
        _filled(features),
        stacked,
        stacked if start is None else start.contiguous(),
        _strides(out),
        _all_strides(features),
        len(features),
        height * width,
        channels,
        has_start=start is not None,
        **_constants(features, tile_pixels, tile_channels),
    )


def channel_dots(gradient: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Return what `contractions.channel_dots` does."""
    gradient = _with_pixels_in_line(gradient)
    features = [_with_pixels_in_line(feature) for feature in features]
    tile_pixels, tile_channels = _tile(gradient)
    batch, channels, height, width = gradient.shape
    dtype = at_least_float32(gradient.dtype)
    out = torch.empty(batch, len(features), channels, dtype=dtype, device=gradient.device)
    _channel_dots[batch, len(features), triton.cdiv(channels, tile_channels)](
        out,
        gradient,
        _filled(features),
        _strides(gradient),
        _all_strides(features),
        len(features),
        height * width,
        channels,
        **_constants(features, tile_pixels, tile_channels),
    )
    return out


def _tile(x: Tensor) -> tuple[int, int]:
    """Return the pixels and channels of a tile of x."""
    channels = min(triton.next_power_of_2(x.shape[1]), WIDEST)
    return TILE // channels, channels


def _constants(features: Sequence[Tensor], pixels: int, channels: int) -> dict[str, Any]:
    return {
        "slots": triton.next_power_of_2(len(features)),
        "sum_dtype": tl.float64 if features[0].dtype == torch.float64 else tl.float32,
        "tile_pixels": pixels,
        "tile_channels": channels,
    }


def _with_pixels_in_line(x: Tensor) -> Tensor:
    """Return x so that one stride leads from every pixel to the next."""
    if 1 in x.shape[2:] or x.stride(2) == x.shape[3] * x.stride(3):
        return x
    return x.contiguous()


def _strides(x: Tensor) -> tuple[int, int, int]:
    """Return the strides over images, pixels and channels."""
    return x.stride(0), x.stride(3 if x.shape[3] > 1 else 2), x.stride(1)


def _all_strides(features: Sequence[Tensor]) -> tuple[int, ...]:
    return tuple(stride for feature in _filled(features) for stride in _strides(feature))


def _filled(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the features, the first repeated until there is a power of two of them."""
    missing = triton.next_power_of_2(len(features)) - len(features)
    return (*features, *[features[0]] * missing)
