"""What is done to features between convolutions on a GPU, as Triton kernels.

Features lie with channels last: a feature is a matrix of the pixels of all images x channels, with
one stride from pixel to pixel, so that a slice of channels is a feature too. Kernels take the
addresses of many features, in places of which there are 4, 32, 64, ..., and read 16 bytes at a
time: strides are given in `unit`s of so many numbers, which the compiler then knows to divide them.
Sums are float32, or float64 for features that are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from afi_search.nn.ops.common import pixel_stride

TILE, DOTS_TILE = 2048, 4096
"""Numbers of one feature that a program works on at a time."""
WIDEST = 32
"""Channels of a tile at most, of the kernels of AFI."""
ROWS, COLUMNS = 256, 32
"""Of a tile of batch norm's kernels."""
BLOCKS = 256
"""Programs that share the pixels of a channel in batch norm's sums, at most. The last of them adds
up what all have left, alone, so that many columns or programs are slow."""


@triton.jit(do_not_specialize=["count"])
def _weighted_sum(  # type: ignore[no-untyped-def]
    out,
    features,
    weights,
    start,
    plus,
    gate,
    ceiling,
    out_stride,
    strides,
    plus_stride,
    gate_stride,
    count,
    pixels,
    channels,
    unit: tl.constexpr,
    slots: tl.constexpr,
    sum_dtype: tl.constexpr,
    tile_pixels: tl.constexpr,
    tile_channels: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * tile_pixels + tl.arange(0, tile_pixels)[:, None]
    c = tl.program_id(2) * tile_channels + tl.arange(0, tile_channels)[None, :]
    row = image * pixels + p
    within = c < channels * unit
    inside = (p < pixels) & within
    of_image = image * (channels * unit) + c
    total = tl.zeros((tile_pixels, tile_channels), sum_dtype)
    if start is not None:
        total += tl.load(start + of_image, within, other=0.0)
    if plus is not None:
        total += tl.load(plus + row * (plus_stride * unit) + c, inside, other=0.0).to(sum_dtype)
    for j in tl.static_range(slots):
        if j < count:
            x = tl.load(features[j] + row * (strides[j] * unit) + c, inside, other=0.0)
            total += x.to(sum_dtype) * tl.load(weights[j] + of_image, within, other=0.0)
    if gate is not None:
        x = tl.load(gate + row * (gate_stride * unit) + c, inside, other=0.0).to(sum_dtype)
        total = tl.where((x > 0) & (x < ceiling), total, 0.0)
    tl.store(out + row * (out_stride * unit) + c, total.to(out.dtype.element_ty), inside)


@triton.jit
def _rectify(  # type: ignore[no-untyped-def]
    before,
    out,
    also,
    means,
    ceiling,
    before_stride,
    out_stride,
    also_stride,
    pixels,
    channels,
    unit: tl.constexpr,
    sum_dtype: tl.constexpr,
    tile_pixels: tl.constexpr,
    tile_channels: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * tile_channels + tl.arange(0, tile_channels)
    c = column[None, :]
    total = tl.zeros((tile_pixels, tile_channels), sum_dtype)
    for begin in range(0, pixels, tile_pixels):
        p = begin + tl.arange(0, tile_pixels)[:, None]
        inside = (p < pixels) & (c < channels * unit)
        row = image * pixels + p
        x = tl.load(before + row * (before_stride * unit) + c, inside, other=0.0).to(sum_dtype)
        x = tl.where(x < 0, 0.0, x)
        x = tl.where(x > ceiling, ceiling, x)
        y = x.to(out.dtype.element_ty)
        tl.store(out + row * (out_stride * unit) + c, y, inside)
        if also is not None:
            tl.store(also + row * (also_stride * unit) + c, y, inside)
        total += x
    at = image * (channels * unit) + column
    tl.store(means + at, tl.sum(total, 0) / pixels, column < channels * unit)


@triton.jit(do_not_specialize=["count"])
def _channel_dots(  # type: ignore[no-untyped-def]
    out,
    gradient,
    features,
    gradient_stride,
    strides,
    count,
    images,
    pixels,
    channels,
    unit: tl.constexpr,
    slots: tl.constexpr,
    sum_dtype: tl.constexpr,
    tile_pixels: tl.constexpr,
    tile_channels: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    c = (tl.program_id(1) * tile_channels + tl.arange(0, tile_channels))[None, :]
    slot = tl.arange(0, slots)[:, None]
    total = tl.zeros((slots, tile_channels), sum_dtype)
    for begin in range(0, pixels, tile_pixels):
        p = begin + tl.arange(0, tile_pixels)[:, None]
        inside = (p < pixels) & (c < channels * unit)
        row = image * pixels + p
        given = tl.load(gradient + row * (gradient_stride * unit) + c, inside, other=0.0)
        given = given.to(sum_dtype)
        for j in tl.static_range(slots):
            if j < count:
                x = tl.load(features[j] + row * (strides[j] * unit) + c, inside, other=0.0)
                dots = tl.sum(given * x.to(sum_dtype), 0)[None, :]
                total += tl.where(slot == j, dots, 0.0)
    at = (slot * images + image) * (channels * unit) + c
    tl.store(out + at, total, (slot < count) & (c < channels * unit))


@triton.jit(do_not_specialize=["channels"])
def _moments(  # type: ignore[no-untyped-def]
    x,
    mean,
    variance,
    running_mean,
    running_variance,
    batches,
    momentum,
    partial,
    counter,
    size,
    width,
    channels,
    unit: tl.constexpr,
    sum_dtype: tl.constexpr,
    tile_rows: tl.constexpr,
    columns: tl.constexpr,
):
    channels *= unit
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    # Squares are of differences from a pixel, so that nothing is lost where the mean is large.
    origin = tl.load(x + column % channels).to(sum_dtype)
    first = tl.zeros((tile_rows, columns), sum_dtype)
    second = tl.zeros((tile_rows, columns), sum_dtype)
    for begin in range(
        tl.program_id(0) * tile_rows, tl.cdiv(size, width), tl.num_programs(0) * tile_rows
    ):
        at, inside = _elements(begin, column, size, width, tile_rows)
        d = tl.load(x + at, inside, other=0.0).to(sum_dtype) - origin[None, :]
        d = tl.where(inside, d, 0.0)
        first += d
        second += d * d
    if _last_with(first, second, partial, counter, column, width):
        pixels = (size // channels).to(sum_dtype)
        shift, square = _whole_sums(partial, column, width, channels, tile_rows)
        shift, square = shift / pixels, square / pixels
        value = tl.maximum(square - shift * shift, 0.0, propagate_nan=tl.PropagateNan.ALL)
        inside = column < channels
        tl.store(mean + column, origin + shift, inside)
        tl.store(variance + column, value, inside)
        before = tl.load(running_mean + column, inside)
        tl.store(running_mean + column, before + momentum * (origin + shift - before), inside)
        before = tl.load(running_variance + column, inside)
        value *= pixels / (pixels - 1)
        tl.store(running_variance + column, before + momentum * (value - before), inside)
        if tl.program_id(1) == 0:
            tl.store(batches, tl.load(batches) + 1)


@triton.jit(do_not_specialize=["channels"])
def _normalise(  # type: ignore[no-untyped-def]
    out,
    x,
    mean,
    variance,
    weight,
    bias,
    skip,
    epsilon,
    ceiling,
    size,
    width,
    channels,
    rectified: tl.constexpr,
    unit: tl.constexpr,
    sum_dtype: tl.constexpr,
    tile_rows: tl.constexpr,
    columns: tl.constexpr,
):
    channels *= unit
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    c = column % channels
    centre, scale = _affine(mean, variance, weight, epsilon, c)
    at, inside = _elements(tl.program_id(0) * tile_rows, column, size, width, tile_rows)
    y = tl.load(x + at, inside, other=0.0).to(sum_dtype) - centre[None, :]
    y = y * scale[None, :] + tl.load(bias + c)[None, :]
    if skip is not None:
        y += tl.load(skip + at, inside, other=0.0).to(sum_dtype)
    if rectified:
        y = tl.where(y < 0, 0.0, y)
        y = tl.where(y > ceiling, ceiling, y)
    tl.store(out + at, y.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["channels"])
def _norm_sums(  # type: ignore[no-untyped-def]
    d_weight,
    d_bias,
    d_out,
    x,
    out,
    d_skip,
    mean,
    variance,
    weight,
    bias,
    epsilon,
    ceiling,
    partial,
    counter,
    size,
    width,
    channels,
    rectified: tl.constexpr,
    unit: tl.constexpr,
    sum_dtype: tl.constexpr,
    tile_rows: tl.constexpr,
    columns: tl.constexpr,
):
    channels *= unit
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    c = column % channels
    centre, scale = _affine(mean, variance, weight, epsilon, c)
    shift = tl.load(bias + c)
    first = tl.zeros((tile_rows, columns), sum_dtype)
    second = tl.zeros((tile_rows, columns), sum_dtype)
    for begin in range(
        tl.program_id(0) * tile_rows, tl.cdiv(size, width), tl.num_programs(0) * tile_rows
    ):
        at, inside = _elements(begin, column, size, width, tile_rows)
        g = tl.load(d_out + at, inside, other=0.0).to(sum_dtype)
        value = tl.load(x + at, inside, other=0.0).to(sum_dtype) - centre[None, :]
        if rectified:
            if out is not None:
                y = tl.load(out + at, inside, other=0.0).to(sum_dtype)
            else:
                y = value * scale[None, :] + shift[None, :]
            g = tl.where((y > 0) & (y < ceiling), g, 0.0)
        if d_skip is not None:
            tl.store(d_skip + at, g.to(d_skip.dtype.element_ty), inside)
        first += g
        second += g * value
    if _last_with(first, second, partial, counter, column, width):
        inside = column < channels
        spread = tl.rsqrt(tl.load(variance + c) + epsilon)
        gradients, products = _whole_sums(partial, column, width, channels, tile_rows)
        tl.store(d_bias + column, gradients, inside)
        tl.store(d_weight + column, products * spread, inside)


@triton.jit(do_not_specialize=["channels"])
def _norm_gradient(  # type: ignore[no-untyped-def]
    d_x,
    d_out,
    x,
    d_weight,
    d_bias,
    mean,
    variance,
    weight,
    bias,
    epsilon,
    ceiling,
    size,
    width,
    channels,
    rectified: tl.constexpr,
    unit: tl.constexpr,
    sum_dtype: tl.constexpr,
    tile_rows: tl.constexpr,
    columns: tl.constexpr,
):
    channels *= unit
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    c = column % channels
    centre, scale = _affine(mean, variance, weight, epsilon, c)
    pixels = (size // channels).to(sum_dtype)
    slope = tl.load(d_weight + c) * tl.rsqrt(tl.load(variance + c) + epsilon) / pixels
    constant = tl.load(d_bias + c) / pixels
    at, inside = _elements(tl.program_id(0) * tile_rows, column, size, width, tile_rows)
    g = tl.load(d_out + at, inside, other=0.0).to(sum_dtype)
    value = tl.load(x + at, inside, other=0.0).to(sum_dtype) - centre[None, :]
    if rectified:
        y = value * scale[None, :] + tl.load(bias + c)[None, :]
        g = tl.where((y > 0) & (y < ceiling), g, 0.0)
    g = scale[None, :] * (g - constant[None, :] - value * slope[None, :])
    tl.store(d_x + at, g.to(d_x.dtype.element_ty), inside)


@triton.jit
def _elements(begin, column, size, width, tile_rows: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return where a tile's numbers are, and which of them there are.

    A feature is read as rows of `width` numbers: its channels, or those of several pixels.
    """
    row = begin + tl.arange(0, tile_rows).to(tl.int64)[:, None]
    at = row * width + column[None, :]
    return at, (at < size) & (column < width)[None, :]


@triton.jit
def _affine(mean, variance, weight, epsilon, c):  # type: ignore[no-untyped-def]
    """Return what is subtracted from a channel, and what it is multiplied with then."""
    scale = tl.load(weight + c) * tl.rsqrt(tl.load(variance + c) + epsilon)
    return tl.load(mean + c), scale


@triton.jit
def _last_with(first, second, partial, counter, column, width):  # type: ignore[no-untyped-def]
    """Leave a program's sums to the last of its columns' programs; return whether it is this."""
    at = tl.program_id(0) * width + column
    tl.store(partial + at, tl.sum(first, 0), column < width)
    tl.store(partial + tl.num_programs(0) * width + at, tl.sum(second, 0), column < width)
    tl.debug_barrier()
    before = tl.atomic_add(counter + tl.program_id(1), 1, sem="acq_rel")
    last = before == tl.num_programs(0) - 1
    if last:
        tl.store(counter + tl.program_id(1), 0)
    return last


@triton.jit
def _whole_sums(partial, column, width, channels, tile_rows: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add up what all programs left of the columns, and the columns of the same channel."""
    count = tl.num_programs(0)
    first = tl.zeros((tile_rows, column.shape[0]), partial.dtype.element_ty)
    second = tl.zeros((tile_rows, column.shape[0]), partial.dtype.element_ty)
    for begin in range(0, count, tile_rows):
        row = begin + tl.arange(0, tile_rows)[:, None]
        at = row * width + column[None, :]
        inside = (row < count) & (column < width)[None, :]
        first += tl.load(partial + at, inside, other=0.0, cache_modifier=".cg")
        at += count * width
        second += tl.load(partial + at, inside, other=0.0, cache_modifier=".cg")
    alike = (column % channels)[:, None] == (column % channels)[None, :]
    first = tl.where(alike, tl.sum(first, 0)[:, None], 0.0)
    second = tl.where(alike, tl.sum(second, 0)[:, None], 0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


def weighted_sum(
    out: Tensor,
    features: Sequence[Tensor],
    weights: Sequence[Tensor],
    start: Tensor | None = None,
    plus: Tensor | None = None,
    gate: Tensor | None = None,
    ceiling: float = 0.0,
) -> None:
    """Write start + plus + sum_j weights[j] * features[j] to `out`.

    Args:
        out: B x C x H x W.
        features: of the same shape.
        weights: B x C each, without gaps.
        start: B x C, without gaps.
        plus: as a feature.
        gate: X; the result is zero where it is not between zero and the ceiling.
        ceiling: of the gate.
    """
    plan = _Plan(TILE, out, *features, *(x for x in (plus, gate) if x is not None))
    read, by = _filled(features or [out]), _filled(weights or [out])
    _weighted_sum[plan.images, plan.pixel_tiles, plan.channel_tiles](
        out,
        read,
        by,
        start,
        plus,
        gate,
        ceiling,
        plan.stride(out),
        tuple(map(plan.stride, read)),
        plan.stride(plus),
        plan.stride(gate),
        len(features),
        plan.pixels,
        plan.channels,
        slots=len(read),
        **plan.constants,
    )


def join(
    before: Tensor,
    ceiling: float,
    features: Sequence[Tensor],
    weights: Sequence[Tensor] | None,
    both: Tensor,
    means: Tensor,
    also: Tensor | None,
) -> None:
    """Write X and R side by side.

    Args:
        before: X is this, kept between zero and the ceiling, B x C x H x W.
        features, weights: what R is the sum of, B x C' x H x W and B x C'; weights of 1 where None.
        both: (X, R), B x (C + C') x H x W.
        means: those of X, B x C, without gaps.
        also: where X is written once more.
    """
    channels = before.shape[1]
    out, beside = both[:, :channels], both[:, channels:]
    plan = _Plan(TILE, before, out, *([] if also is None else [also]))
    strides = map(plan.stride, (before, out, also))
    _rectify[plan.images, plan.channel_tiles](
        before, out, also, means, ceiling, *strides, plan.pixels, plan.channels, **plan.constants
    )
    if weights is None:
        beside.copy_(features[0])
    else:
        weighted_sum(beside, features, weights)


def channel_dots(out: Tensor, gradient: Tensor, features: Sequence[Tensor]) -> None:
    """Write the sums over the pixels of gradient * features[j] to out, features x B x C."""
    plan = _Plan(DOTS_TILE, gradient, *features)
    read = _filled(features)
    _channel_dots[plan.images, plan.channel_tiles](
        out,
        gradient,
        read,
        plan.stride(gradient),
        tuple(map(plan.stride, read)),
        len(features),
        plan.images,
        plan.pixels,
        plan.channels,
        slots=len(read),
        **plan.constants,
    )


class _Plan:
    """How features of one shape are cut into tiles."""

    def __init__(self, tile: int, *features: Tensor) -> None:
        first = features[0]
        self.images, channels, height, width = first.shape
        self.pixels = height * width
        strides = [pixel_stride(x) for x in features]
        self.unit = math.gcd(16 // first.element_size(), channels, *strides)
        tile_channels = min(triton.next_power_of_2(channels), WIDEST)
        tile_pixels = tile // tile_channels
        self.channels = channels // self.unit
        self.pixel_tiles = triton.cdiv(self.pixels, tile_pixels)
        self.channel_tiles = triton.cdiv(channels, tile_channels)
        self.constants = {
            "unit": self.unit,
            "sum_dtype": _sum_dtype(first),
            "tile_pixels": tile_pixels,
            "tile_channels": tile_channels,
        }

    def stride(self, x: Tensor | None) -> int:
        """Return the stride from pixel to pixel, in units."""
        return 0 if x is None else pixel_stride(x) // self.unit


def _filled(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the features, the last repeated until all slots are full."""
    slots = 4 if len(features) <= 4 else max(32, triton.next_power_of_2(len(features)))
    return (*features, *[features[-1]] * (slots - len(features)))


def _sum_dtype(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def moments(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    batches: Tensor,
    momentum: float,
) -> None:
    """Write the mean and the variance of each channel, and update those that run.

    Args:
        x: B x C x H x W, without gaps.
        mean, variance, running_mean, running_variance: C.
        batches: their number so far, which is counted up.
        momentum: the share of x in the running ones.
    """
    grid, size, constants = _rows(x)
    blocks = min(grid[0], BLOCKS)
    _moments[blocks, grid[1]](
        x,
        mean,
        variance,
        running_mean,
        running_variance,
        batches,
        momentum,
        *_meeting(mean, blocks, size[1]),
        *size,
        **constants,
    )


def normalise(
    out: Tensor,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    epsilon: float,
    ceiling: float | None,
) -> None:
    """Write (x - mean) / sqrt(variance + epsilon) * weight + bias + skip to out.

    All features are B x C x H x W, without gaps. Where there is a ceiling, the result is kept
    between zero and it.
    """
    grid, size, constants = _rows(x)
    rest = epsilon, ceiling or 0.0, *size, ceiling is not None
    _normalise[grid](out, x, mean, variance, weight, bias, skip, *rest, **constants)


def normalise_backward(
    d_out: Tensor,
    x: Tensor,
    out: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    ceiling: float | None,
) -> list[Tensor]:
    """Return the gradients of x, weight, bias and, where `out` is given, of skip.

    All features are B x C x H x W, without gaps; the mean and the variance are those of x.

    Args:
        out: what `normalise` returned, where it added skip and activated the sum.
    """
    grid, size, constants = _rows(x)
    blocks = min(grid[0], BLOCKS)
    rectified = ceiling is not None
    d_weight, d_bias = torch.empty_like(mean), torch.empty_like(mean)
    d_skip = None if out is None else torch.empty_like(x)
    of = mean, variance, weight, bias, epsilon, ceiling or 0.0
    meeting = _meeting(mean, blocks, size[1])
    _norm_sums[blocks, grid[1]](
        d_weight, d_bias, d_out, x, out, d_skip, *of, *meeting, *size, rectified, **constants
    )
    d_x = torch.empty_like(x)
    given, gated = (d_out, rectified) if d_skip is None else (d_skip, False)
    _norm_gradient[grid](d_x, given, x, d_weight, d_bias, *of, *size, gated, **constants)
    return [d_x, d_weight, d_bias, *([] if d_skip is None else [d_skip])]


def _rows(x: Tensor) -> tuple[tuple[int, int], tuple[int, int, int], dict[str, object]]:
    """Return how x is cut: a grid, its size, the numbers of a row and channels, and constants."""
    channels, size = x.shape[1], x.numel()
    width = max(channels, COLUMNS // channels * channels)
    grid = triton.cdiv(triton.cdiv(size, width), ROWS), triton.cdiv(width, COLUMNS)
    unit = math.gcd(8, channels)
    cut = {"unit": unit, "sum_dtype": _sum_dtype(x), "tile_rows": ROWS, "columns": COLUMNS}
    return grid, (size, width, channels // unit), {**cut, "num_warps": 8}


def _meeting(like: Tensor, blocks: int, width: int) -> tuple[Tensor, Tensor]:
    """Return where programs leave two sums of each column, and where they count each other."""
    stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0
    return like.new_empty(2, blocks, width), _counters(like.device, stream)


@cache
def _counters(device: torch.device, stream: int) -> Tensor:
    """Return zeros, of which kernels leave zeros behind; a stream runs one after the other."""
    return torch.zeros(1024, dtype=torch.int32, device=device)
