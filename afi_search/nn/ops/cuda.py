"""The operators' kernels for a GPU, in Triton, and the functions that launch them.

Functions are called as `operator` says: with what they fill, then the operator's arguments.

Features lie with channels last: a feature is a matrix of the pixels of all images x channels, with
one stride from pixel to pixel, so that a slice of channels is a feature too. Kernels take the
addresses of up to 4 or 16 features, and read 16 bytes at a time: strides are given in `unit`s of so
many numbers, which the compiler then knows to divide them. Sums are float32, or float64 for
features that are. What is None is compiled away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language import constexpr

from afi_search.nn.ops.common import pixel_stride

TILE, DOTS_TILE = constexpr(1024), constexpr(4096)
"""Numbers of one feature that a program works on at a time."""
WIDEST = 32
"""Channels of a tile at most, of the kernels of AFI."""
ROWS, COLUMNS = constexpr(256), constexpr(32)
"""Of a tile of batch norm's kernels."""
FEW, MOST = 4, 16
"""Features that a kernel is given, at most: a loop over 32, unrolled, takes seconds to compile."""
DOTS = constexpr(4)
"""Features whose sums over the pixels of an image a program makes; the others are other programs',
as images alone are too few programs for a GPU."""
BLOCKS = 256
"""Programs that share the pixels of a channel in batch norm's sums, at most. The last of them adds
up what all have left, alone, so that many columns or programs are slow."""


@triton.jit(do_not_specialize=["count"])
def _weighted_sum(
    out, xs, by, mean, plus, gate, ceiling, strides, count, size, unit: constexpr, wide: constexpr
):
    pixels, channels = size[0], size[1] * unit
    rows: constexpr = TILE // wide
    image = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * rows + tl.arange(0, rows)[:, None]
    c = tl.program_id(2) * wide + tl.arange(0, wide)[None, :]
    row = image * pixels + p
    within = c < channels
    inside = (p < pixels) & within
    of_image = image * channels + c
    total = _zeros(out, rows, wide)
    if mean is not None:
        total += tl.load(mean + of_image, within, other=0.0) / pixels
    if plus is not None:
        x = tl.load(plus + row * (strides[1] * unit) + c, inside, other=0.0)
        total += x.to(total.dtype)
    for j in tl.static_range(len(xs)):
        end = tl.where(j < count, channels, 0)  # no branch, behind which loads would wait
        x = tl.load(xs[j] + row * (strides[3 + j] * unit) + c, (p < pixels) & (c < end), other=0.0)
        total += x.to(total.dtype) * tl.load(by[j] + of_image, c < end, other=0.0)
    if gate is not None:
        x = tl.load(gate + row * (strides[2] * unit) + c, inside, other=0.0).to(total.dtype)
        total = tl.where((x > 0) & (x < ceiling), total, 0.0)
    tl.store(out + row * (strides[0] * unit) + c, total.to(out.dtype.element_ty), inside)


@triton.jit
def _rectify(before, out, also, means, ceiling, strides, size, unit: constexpr, wide: constexpr):
    pixels, channels = size[0], size[1] * unit
    rows: constexpr = TILE // wide
    image = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * wide + tl.arange(0, wide)
    c = column[None, :]
    total = _zeros(out, rows, wide)
    for begin in range(0, pixels, rows):
        p = begin + tl.arange(0, rows)[:, None]
        inside = (p < pixels) & (c < channels)
        row = image * pixels + p
        x = tl.load(before + row * (strides[0] * unit) + c, inside, other=0.0).to(total.dtype)
        x = _clamped(x, ceiling)
        y = x.to(out.dtype.element_ty)
        tl.store(out + row * (strides[1] * unit) + c, y, inside)
        if also is not None:
            tl.store(also + row * (strides[2] * unit) + c, y, inside)
        total += x
    tl.store(means + image * channels + column, tl.sum(total, 0) / pixels, column < channels)


@triton.jit(do_not_specialize=["count"])
def _channel_dots(
    out, gradient, xs, strides, count, images, size, unit: constexpr, wide: constexpr
):
    pixels, channels = size[0], size[1] * unit
    rows: constexpr = DOTS_TILE // wide
    image = tl.program_id(0).to(tl.int64)
    c = (tl.program_id(1) * wide + tl.arange(0, wide))[None, :]
    slot = tl.arange(0, len(xs))[:, None]
    total = _zeros(gradient, len(xs), wide)
    for begin in range(0, pixels, rows):
        p = begin + tl.arange(0, rows)[:, None]
        inside = (p < pixels) & (c < channels)
        row = image * pixels + p
        given = tl.load(gradient + row * (strides[0] * unit) + c, inside, other=0.0)
        given = given.to(total.dtype)
        for j in tl.static_range(len(xs)):
            if (j < count) & (j // DOTS == tl.program_id(2)):
                x = tl.load(xs[j] + row * (strides[1 + j] * unit) + c, inside, other=0.0)
                dots = tl.sum(given * x.to(total.dtype), 0)[None, :]
                total += tl.where(slot == j, dots, 0.0)
    at = (slot * images + image) * channels + c
    own = (slot < count) & (slot // DOTS == tl.program_id(2))
    tl.store(out + at, total, own & (c < channels))


@triton.jit(do_not_specialize=["count", "images"])
def _weigh(
    out, reduce, expand, zs, count, images, size, slots: constexpr, wide: constexpr, deep: constexpr
):
    first, second, c = _scorer(reduce, expand, size, wide, deep)
    slot = tl.arange(0, slots)[:, None]
    scores = _zeros(out, slots, wide)
    for j in tl.range(0, count, num_stages=4):
        row = j * images + tl.program_id(0)
        z = tl.load(zs + row * size[0] + c, c < size[0], other=0.0)
        h = tl.sum(first * z, 1)[:, None]
        score = tl.sum(second * tl.where(h < 0, 0.0, h), 0)[None, :]
        scores += tl.where(slot == j, score, 0.0)
    scores = tl.where(slot < count, scores, -float("inf"))
    share = tl.exp(scores - tl.max(scores, 0)[None, :])
    at = (slot * images + tl.program_id(0)) * size[0] + c
    inside = (slot < count) & (c < size[0])
    tl.store(out + at, share / tl.sum(share, 0)[None, :], inside)


@triton.jit(do_not_specialize=["count", "images"])
def _weigh_backward(
    d_zs,
    parts,
    d_out,
    out,
    reduce,
    expand,
    zs,
    later,
    count,
    images,
    size,
    slots: constexpr,
    wide: constexpr,
    deep: constexpr,
):
    first, second, c = _scorer(reduce, expand, size, wide, deep)
    d_first, d_second = _zeros(out, deep, wide), _zeros(out, deep, wide)
    slot = tl.arange(0, slots)[:, None]
    inside = (slot < count) & (c < size[0])
    for image in range(tl.program_id(0), images, tl.num_programs(0)):
        at = (slot * images + image) * size[0] + c
        share = tl.load(out + at, inside, other=0.0)
        given = tl.load(d_out + at, inside, other=0.0)
        d_scores = share * (given - tl.sum(share * given, 0)[None, :])
        for j in tl.range(0, count, num_stages=4):
            row = (j * images + image) * size[0]
            z = tl.load(zs + row + c, c < size[0], other=0.0)
            h = tl.sum(first * z, 1)[:, None]
            d_score = tl.sum(tl.where(slot == j, d_scores, 0.0), 0)[None, :]
            d_h = tl.where(h > 0, tl.sum(second * d_score, 1)[:, None], 0.0)
            d_z = tl.sum(first * d_h, 0)[None, :]
            if later is not None:
                d_z += tl.load(later + row + c, c < size[0], other=0.0)
            tl.store(d_zs + row + c, d_z, c < size[0])
            d_first += d_h * z
            d_second += tl.where(h < 0, 0.0, h) * d_score
    at, also, within = _places(size, wide, deep)
    part = parts + tl.program_id(0) * (2 * size[0] * size[1])
    tl.store(part + at, d_first, within)
    tl.store(part + size[0] * size[1] + also, d_second, within)


@triton.jit
def _scorer(reduce, expand, size, wide: constexpr, deep: constexpr):
    """Return W1 and the transposed W2, hidden x channels, and the numbers of the channels."""
    at, also, within = _places(size, wide, deep)
    first = tl.load(reduce + at, within, other=0.0)
    second = tl.load(expand + also, within, other=0.0)
    return first, second, tl.arange(0, wide)[None, :]


@triton.jit
def _places(size, wide: constexpr, deep: constexpr):
    """Return where W1 and W2 have each pair of channel and hidden unit, and which there are."""
    h, c = tl.arange(0, deep)[:, None], tl.arange(0, wide)[None, :]
    return h * size[0] + c, c * size[1] + h, (h < size[1]) & (c < size[0])


@triton.jit(do_not_specialize=["channels"])
def _moments(
    mean, variance, x, running, batches, momentum, meeting, size, channels, unit: constexpr
):
    channels *= unit
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    # Squares are of differences from a pixel, so that nothing is lost where the mean is large.
    origin = tl.load(x + column % channels).to(mean.dtype.element_ty)
    first, second = _zeros(x, ROWS, COLUMNS), _zeros(x, ROWS, COLUMNS)
    for begin in range(
        tl.program_id(0) * ROWS, tl.cdiv(size[0], size[1]), tl.num_programs(0) * ROWS
    ):
        at, inside = _elements(begin, column, size)
        d = tl.load(x + at, inside, other=0.0).to(first.dtype) - origin[None, :]
        d = tl.where(inside, d, 0.0)
        first += d
        second += d * d
    if _last_with(first, second, meeting, column, size[1]):
        pixels = (size[0] // channels).to(first.dtype)
        shift, square = _whole_sums(meeting[0], column, size[1], channels)
        shift, square = shift / pixels, square / pixels
        value = tl.maximum(square - shift * shift, 0.0, propagate_nan=tl.PropagateNan.ALL)
        inside = column < channels
        tl.store(mean + column, origin + shift, inside)
        tl.store(variance + column, value, inside)
        _approach(running[0] + column, origin + shift, momentum, inside)
        _approach(running[1] + column, value * (pixels / (pixels - 1)), momentum, inside)
        if tl.program_id(1) == 0:
            tl.store(batches, tl.load(batches) + 1)


@triton.jit(do_not_specialize=["channels"])
def _normalise(out, x, norm, skip, epsilon, ceiling, size, channels, unit: constexpr):
    channels *= unit
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    centre, scale, shift, _ = _affine(norm, epsilon, column % channels)
    at, inside = _elements(tl.program_id(0) * ROWS, column, size)
    y = tl.load(x + at, inside, other=0.0).to(scale.dtype) - centre[None, :]
    y = y * scale[None, :] + shift[None, :]
    if skip is not None:
        y += tl.load(skip + at, inside, other=0.0).to(scale.dtype)
    if ceiling is not None:
        y = _clamped(y, ceiling)
    tl.store(out + at, y.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["channels"])
def _norm_sums(
    affine, d_out, x, out, d_skip, norm, epsilon, ceiling, meeting, size, channels, unit: constexpr
):
    channels *= unit
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    centre, scale, shift, spread = _affine(norm, epsilon, column % channels)
    first, second = _zeros(x, ROWS, COLUMNS), _zeros(x, ROWS, COLUMNS)
    for begin in range(
        tl.program_id(0) * ROWS, tl.cdiv(size[0], size[1]), tl.num_programs(0) * ROWS
    ):
        at, inside = _elements(begin, column, size)
        g = tl.load(d_out + at, inside, other=0.0).to(first.dtype)
        value = tl.load(x + at, inside, other=0.0).to(first.dtype) - centre[None, :]
        if ceiling is not None:
            if out is not None:
                y = tl.load(out + at, inside, other=0.0).to(first.dtype)
            else:
                y = value * scale[None, :] + shift[None, :]
            g = tl.where((y > 0) & (y < ceiling), g, 0.0)
        if d_skip is not None:
            tl.store(d_skip + at, g.to(d_skip.dtype.element_ty), inside)
        first += g
        second += g * value
    if _last_with(first, second, meeting, column, size[1]):
        gradients, products = _whole_sums(meeting[0], column, size[1], channels)
        tl.store(affine[0] + column, products * spread, column < channels)
        tl.store(affine[1] + column, gradients, column < channels)


@triton.jit(do_not_specialize=["channels"])
def _norm_gradient(d_x, affine, d_out, x, norm, epsilon, ceiling, size, channels, unit: constexpr):
    channels *= unit
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    c = column % channels
    centre, scale, shift, spread = _affine(norm, epsilon, c)
    pixels = (size[0] // channels).to(scale.dtype)
    slope = tl.load(affine[0] + c) * spread / pixels
    constant = tl.load(affine[1] + c) / pixels
    at, inside = _elements(tl.program_id(0) * ROWS, column, size)
    g = tl.load(d_out + at, inside, other=0.0).to(scale.dtype)
    value = tl.load(x + at, inside, other=0.0).to(scale.dtype) - centre[None, :]
    if ceiling is not None:
        y = value * scale[None, :] + shift[None, :]
        g = tl.where((y > 0) & (y < ceiling), g, 0.0)
    g = scale[None, :] * (g - constant[None, :] - value * slope[None, :])
    tl.store(d_x + at, g.to(d_x.dtype.element_ty), inside)


@triton.jit
def _zeros(like, rows: constexpr, columns: constexpr):
    """Return where numbers of a feature are added up."""
    wide: constexpr = tl.float64 if like.dtype.element_ty == tl.float64 else tl.float32
    return tl.zeros((rows, columns), wide)


@triton.jit
def _clamped(x, ceiling):
    x = tl.where(x < 0, 0.0, x)
    return tl.where(x > ceiling, ceiling, x)


@triton.jit
def _approach(running, value, momentum, inside):
    before = tl.load(running, inside)
    tl.store(running, before + momentum * (value - before), inside)


@triton.jit
def _elements(begin, column, size):
    """Return where a tile's numbers are, and which of them there are.

    A feature is read as rows of size[1] numbers: its channels, or those of several pixels.
    """
    row = begin + tl.arange(0, ROWS).to(tl.int64)[:, None]
    at = row * size[1] + column[None, :]
    return at, (at < size[0]) & (column < size[1])[None, :]


@triton.jit
def _affine(norm, epsilon, c):
    """Return what channels are subtracted, multiplied with and added, and 1 / their deviation."""
    spread = tl.rsqrt(tl.load(norm[1] + c) + epsilon)
    return tl.load(norm[0] + c), tl.load(norm[2] + c) * spread, tl.load(norm[3] + c), spread


@triton.jit
def _last_with(first, second, meeting, column, width):
    """Leave a program's sums to the last of its columns' programs; return whether it is this."""
    partial, counter = meeting[0], meeting[1] + tl.program_id(1)
    at = tl.program_id(0) * width + column
    tl.store(partial + at, tl.sum(first, 0), column < width)
    tl.store(partial + tl.num_programs(0) * width + at, tl.sum(second, 0), column < width)
    tl.debug_barrier()
    last = tl.atomic_add(counter, 1, sem="acq_rel") == tl.num_programs(0) - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def _whole_sums(partial, column, width, channels):
    """Add up what all programs left of the columns, and the columns of the same channel."""
    count = tl.num_programs(0)
    first, second = _zeros(partial, ROWS, COLUMNS), _zeros(partial, ROWS, COLUMNS)
    for begin in range(0, count, ROWS):
        row = begin + tl.arange(0, ROWS)[:, None]
        at = row * width + column[None, :]
        inside = (row < count) & (column < width)[None, :]
        first += tl.load(partial + at, inside, other=0.0, cache_modifier=".cg")
        at += count * width
        second += tl.load(partial + at, inside, other=0.0, cache_modifier=".cg")
    alike = (column % channels)[:, None] == (column % channels)[None, :]
    first = tl.where(alike, tl.sum(first, 0)[:, None], 0.0)
    second = tl.where(alike, tl.sum(second, 0)[:, None], 0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


def weighted_sum(*given: Any) -> None:
    out, like, features, weights, mean, plus, gate, ceiling = given
    if len(features) > MOST:
        weighted_sum(out, like, features[MOST:], weights[MOST:], mean, plus, None, 0.0)
        features, weights, mean, plus = features[:MOST], weights[:MOST], None, out
    plan = _Plan(TILE, out, *features, *(x for x in (plus, gate) if x is not None))
    read, by = _filled(features or [out]), _filled(weights or [out])
    strides = plan.strides(out, plus, gate, *read)
    _weighted_sum[plan.images, plan.pixel_tiles, plan.channel_tiles](
        out, read, by, mean, plus, gate, ceiling, strides, len(features), *plan.rest
    )


def join(*given: Any) -> None:
    both, means, also, before, features, weights, ceiling, apart = given
    channels = before.shape[1]
    out, beside, extra = both[:, :channels], both[:, channels:], also if apart else None
    plan = _Plan(TILE, before, out)
    strides = plan.strides(before, out, extra)
    grid = plan.images, plan.channel_tiles
    _rectify[grid](before, out, extra, means, ceiling, strides, *plan.rest)
    if weights:
        weighted_sum(beside, beside, features, weights, None, None, None, 0.0)
    else:
        beside.copy_(features[0])


def channel_dots(out: Tensor, gradient: Tensor, features: Sequence[Tensor]) -> None:
    plan = _Plan(DOTS_TILE, gradient, *features)
    for start, dots in zip(range(0, len(features), MOST), out.split(MOST), strict=True):
        some = features[start : start + MOST]
        read = _filled(some)
        strides = plan.strides(gradient, *read)
        grid = plan.images, plan.channel_tiles, triton.cdiv(len(some), DOTS.value)
        _channel_dots[grid](dots, gradient, read, strides, len(some), plan.images, *plan.rest)


def weigh(out: Tensor, reduce: Tensor, expand: Tensor, notes: Tensor) -> None:
    plan, warps = _scorer_plan(reduce, notes)
    _weigh[notes.shape[1],](out, reduce, expand, notes, *plan, num_warps=warps)


def weigh_backward(*given: Any) -> None:
    _, parts, _, _, reduce, _, notes, _ = given
    plan, warps = _scorer_plan(reduce, notes)
    _weigh_backward[len(parts),](*given, *plan, num_warps=warps)


def _scorer_plan(reduce: Tensor, notes: Tensor) -> tuple[tuple[Any, ...], int]:
    """Return sources and images, a scorer's size, all as powers of 2, and warps for them."""
    hidden, channels = reduce.shape
    deep, wide = map(triton.next_power_of_2, reduce.shape)
    slots = 4 if len(notes) <= 4 else max(32, triton.next_power_of_2(len(notes)))
    plan = *notes.shape[:2], (channels, hidden), slots, wide, deep
    return plan, max(1, deep * wide // 512)


class _Plan:
    """How features of one shape are cut into tiles."""

    def __init__(self, tile: constexpr, *features: Tensor) -> None:
        self.images, channels, height, width = features[0].shape
        pixels, most = height * width, 16 // features[0].element_size()
        self._unit = math.gcd(most, channels, *map(pixel_stride, features))
        wide, self.pixel_tiles, self.channel_tiles = _tiles(tile.value, channels, pixels)
        self.rest = (pixels, channels // self._unit), self._unit, wide

    def strides(self, *features: Tensor | None) -> tuple[int, ...]:
        """Return their strides from pixel to pixel, in units."""
        return tuple(0 if x is None else pixel_stride(x) // self._unit for x in features)


@cache
def _tiles(numbers: int, channels: int, pixels: int) -> tuple[int, int, int]:
    """Return the channels of a tile, and how many tiles the pixels and the channels have."""
    wide = min(triton.next_power_of_2(channels), WIDEST)
    return wide, triton.cdiv(pixels, numbers // wide), triton.cdiv(channels, wide)


def _filled(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the features, the last repeated until all slots are full."""
    slots = FEW if len(features) <= FEW else MOST
    return (*features, *[features[-1]] * (slots - len(features)))


def moments(*given: Any) -> None:
    mean, variance, x, *running, batches, momentum = given
    grid, rest = _rows(x.shape[1], x.numel())
    meeting = _meeting(mean, grid, rest[0])
    _moments[min(grid[0], BLOCKS), grid[1]](
        mean, variance, x, tuple(running), batches, momentum, meeting, *rest, num_warps=8
    )


def normalise(out: Tensor, x: Tensor, norm: Sequence[Tensor], *given: Any) -> None:
    skip, epsilon, ceiling = given
    grid, rest = _rows(x.shape[1], x.numel())
    _normalise[grid](out, x, tuple(norm), skip, epsilon, ceiling or None, *rest, num_warps=8)


def normalise_backward(*given: Any) -> None:
    d_x, *affine, d_skip, d_out, x, norm, out, epsilon, ceiling = given
    grid, rest = _rows(x.shape[1], x.numel())
    norm, end = tuple(norm), ceiling or None
    meeting = _meeting(norm[0], grid, rest[0])
    gated = None if out is None else d_skip
    _norm_sums[min(grid[0], BLOCKS), grid[1]](
        tuple(affine), d_out, x, out, gated, norm, epsilon, end, meeting, *rest, num_warps=8
    )
    d_out, end = (d_out, end) if gated is None else (gated, None)
    _norm_gradient[grid](d_x, tuple(affine), d_out, x, norm, epsilon, end, *rest, num_warps=8)


@cache
def _rows(channels: int, size: int) -> tuple[tuple[int, int], tuple[tuple[int, int], int, int]]:
    """Return how a feature is cut: a grid; size and numbers of a row, channels in units, a unit."""
    width = max(channels, COLUMNS.value // channels * channels)
    tiles = triton.cdiv(triton.cdiv(size, width), ROWS.value)
    unit = math.gcd(8, channels)
    return (tiles, triton.cdiv(width, COLUMNS.value)), ((size, width), channels // unit, unit)


def _meeting(like: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return where programs leave two sums of each column, and where they count each other."""
    stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0
    partial = like.new_empty(2, min(grid[0], BLOCKS), size[1])
    return partial, _counters(like.device, stream)


@cache
def _counters(device: torch.device, stream: int) -> Tensor:
    """Return zeros, of which kernels leave zeros behind; a stream runs one after the other."""
    return torch.zeros(1024, dtype=torch.int32, device=device)
