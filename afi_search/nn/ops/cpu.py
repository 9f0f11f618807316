"""The functions of `cpu.cpp`, which the machine's C++ compiler makes once, in seconds.

A CPU runs what lies between convolutions at the speed of its memory, so these functions read and
write every feature as seldom as they can. torch's own operations, which stand in where there is no
compiler, pass over the features several times.

The library is kept in the user's cache. `CXX` names the compiler, `c++` where it does not. The
compiler must know OpenMP; the threads are torch's own.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import cast

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

from afi_search.nn.ops.sums import at_least_float32

SOURCE = Path(__file__).with_name("cpu.cpp")
OPTIONS = ("-std=c++17", "-O3", "-fopenmp", "-fPIC", "-shared")
# What torch found the CPU able to, in a compiler's words.
AVX512 = ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mprefer-vector-width=512")
CAPABILITIES = {"AVX2": ("-mavx2", "-mfma"), "AVX512": (*AVX512, "-mfma")}
REAL_ARGUMENTS = {"join": 1, "part": 1, "normalise": 3, "denormalise": 1}
NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}

Entry = tuple[Tensor, Tensor | None]
"""A feature or gradient, B x C x H x W, and its weight, B x C, where one is needed."""


class NativeWarning(UserWarning):
    """There is no native library on this machine; all works without, but slower on a CPU."""


def takes(*features: Tensor) -> bool:
    """Return whether the functions here can be called with these, B x C x H x W each."""
    dtype = features[0].dtype
    if dtype not in NAMES or not all(_fits(feature, dtype) for feature in features):
        return False
    return library() is not None


def weighted_sum(
    entries: Sequence[Entry], out: Tensor, start: Tensor | None = None, plus: Tensor | None = None
) -> None:
    """Write start + plus + the sum of the entries; see `afi_search.nn.ops.weighted_sum`."""
    row = _Row(out)
    row.add(out.shape[1])
    row.add_address(start)
    row.add_feature(plus)
    row.add_feature(out)
    row.add_terms(entries)
    _function("weighted_sum", out.dtype)(row.array())


def channel_dots(gradient: Tensor, features: Sequence[Tensor], out: Tensor) -> None:
    """Write what `afi_search.nn.ops.weighted_sum.channel_dots` returns."""
    row = _Row(gradient)
    row.add(gradient.shape[1])
    row.add_feature(gradient)
    row.add_address(out)
    row.add_terms([(feature, None) for feature in features])
    _function("channel_dots", gradient.dtype)(row.array())


def join(
    before: Tensor,
    entries: Sequence[Entry],
    ceiling: float,
    joined: Tensor,
    apart: Tensor | None,
    pooled: Tensor | None,
) -> None:
    """Write X beside the sum of the entries, and more of X.

    Args:
        before: X before its activation, B x C x H x W.
        entries: of C' channels.
        ceiling: X is `before`, kept between 0 and this.
        joined: is written to: X and the sum, B x (C + C') x H x W.
        apart: is written to: X, if it is wanted a second time; it may be `before`.
        pooled: is written to: the means of X over the pixels, B x C, if they are wanted.
    """
    channels = before.shape[1]
    row = _Row(before)
    row.add(channels)
    row.add_feature(before)
    row.add_feature(joined)
    row.add_feature(apart)
    row.add_address(pooled)
    row.add(joined.shape[1] - channels)
    row.add_feature(joined, channels)
    row.add_terms(entries)
    _function("join", before.dtype)(row.array(), ceiling)
    if apart is not None:
        torch.autograd.graph.increment_version(apart)


def part(
    d_joined: Tensor,
    everywhere: Tensor | None,
    later: Sequence[Entry],
    feature: Tensor,
    ceiling: float,
    d_before: Tensor,
    carried: Sequence[Entry],
    d_integrated: Tensor,
    features: Sequence[Tensor],
    dots: Tensor,
) -> None:
    """Write the gradients of all that `join` was given; d_joined is that of what it wrote.

    Args:
        d_joined: B x (C + C') x H x W.
        everywhere: what is added to X's gradient in every pixel, B x C.
        later: what is added to X's gradient, C channels.
        feature: X.
        ceiling: as in `join`.
        d_before: is written to: the gradient of `before`.
        carried: what is added to R's gradient, C' channels.
        d_integrated: is written to: R's gradient, B x C' x H x W.
        features: that R is made of.
        dots: is written to: the gradients of their weights, B x len(features) x C'.
    """
    channels = feature.shape[1]
    row = _Row(feature)
    row.add(channels)
    row.add_feature(d_joined)
    row.add_feature(feature)
    row.add_feature(d_before)
    row.add_address(everywhere)
    row.add(d_integrated.shape[1])
    row.add_feature(d_joined, channels)
    row.add_feature(d_integrated)
    row.add_address(dots)
    row.add_terms(later)
    row.add_terms(carried)
    row.add_terms([(feature, None) for feature in features])
    _function("part", feature.dtype)(row.array(), ceiling)


def normalise(
    x: Tensor,
    norm: nn.BatchNorm2d,
    skip: Tensor | None,
    ceiling: float | None,
    out: Tensor,
    mean: Tensor,
    inverse: Tensor,
) -> None:
    """Write what a batch norm in training makes of x, and update its running statistics.

    Args:
        x: B x C x H x W, with more than one number a channel.
        norm: with weight, bias, running statistics and a momentum.
        skip: is added to the result.
        ceiling: the result is kept between 0 and this; None leaves it as it is.
        out: is written to, B x C x H x W.
        mean: is written to: of each channel.
        inverse: is written to: one over the square root of the variance plus epsilon.
    """
    row = _Row(x)
    row.add(x.shape[1])
    row.add_feature(x)
    row.add_feature(skip)
    row.add_feature(out)
    for of_channels in (norm.weight, norm.bias, norm.running_mean, norm.running_var, mean, inverse):
        row.add_address(of_channels)
    _function("normalise", x.dtype)(row.array(), norm.momentum, norm.eps, ceiling or 0.0)


def denormalise(
    given: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor | None,
    ceiling: float | None,
    mean: Tensor,
    inverse: Tensor,
    d_x: Tensor,
    d_skip: Tensor | None,
    d_weight: Tensor,
    d_bias: Tensor,
) -> None:
    """Write the gradients of what `normalise` was given; `given` is that of what it wrote.

    Args:
        given: B x C x H x W.
        x, mean, inverse, ceiling: as in `normalise`.
        weight, bias: the batch norm's.
        out: what `normalise` wrote; not needed without a ceiling or where nothing was added.
        d_x, d_weight, d_bias: are written to.
        d_skip: is written to, where something was added.
    """
    row = _Row(x)
    row.add(x.shape[1])
    for feature in (given, x, out, d_skip, d_x):
        row.add_feature(feature)
    for of_channels in (weight, bias, mean, inverse, d_weight, d_bias):
        row.add_address(of_channels)
    _function("denormalise", x.dtype)(row.array(), ceiling or 0.0)


@cache
def library() -> ctypes.CDLL | None:
    """Return the library, compiled if need be; None, after a warning, where that fails."""
    capability = torch.backends.cpu.get_cpu_capability()
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, *OPTIONS, *CAPABILITIES.get(capability, ())]
    try:
        return ctypes.CDLL(str(_compiled(command)))
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "stderr", None) or error
        warnings.warn(
            "no C++ compiler with OpenMP was found, so AFI takes longer on this CPU; "
            f"install g++, or name a compiler in CXX ({' '.join(command)}: {why})",
            NativeWarning,
            stacklevel=2,
        )
        return None


def _compiled(command: Sequence[str]) -> Path:
    """Return the library that the command makes, from the cache if it has been made."""
    text = f"{shutil.which(command[0])} {command[1:]} {SOURCE.read_text()}"
    name = f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
    path = user_cache_path("afi_search") / "native" / name
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(dir=path.parent)
    except OSError:  # There is no cache to write to.
        path = Path(tempfile.mkdtemp()) / name
        folder = tempfile.mkdtemp(dir=path.parent)
    made = Path(folder) / name
    try:
        subprocess.run(
            [*command, str(SOURCE), "-o", str(made)], check=True, capture_output=True, text=True
        )
        made.replace(path)
    finally:
        shutil.rmtree(folder)
    return path


@cache
def _function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    found = library()
    assert found is not None
    function = getattr(found, f"{name}_{NAMES[dtype]}")
    function.restype = None
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_double] * REAL_ARGUMENTS.get(name, 0)]
    return cast(Callable[..., None], function)


class _Row:
    """What a function is called with, number by number, in the order in which it reads them."""

    def __init__(self, like: Tensor) -> None:
        batch, _, height, width = self._shape = like.shape
        self._sums = at_least_float32(like.dtype)
        self._numbers = [batch, height * width, torch.get_num_threads()]
        self._held: list[Tensor] = []

    def add(self, number: int) -> None:
        """Add a number."""
        self._numbers.append(number)

    def add_address(self, of: Tensor | None) -> None:
        """Add where numbers lie, in order and without gaps, or nothing."""
        self._numbers.append(0 if of is None else self._in_line(self._checked(of)).data_ptr())

    def add_feature(self, x: Tensor | None, first: int = 0) -> None:
        """Add a feature from its channel `first` on, or nothing."""
        if x is None:
            self._numbers += (0, 0, 0)
            return
        batch, _, height, width = shape = x.shape
        if (batch, height, width) != (self._shape[0], *self._shape[2:]):
            raise ValueError(f"features of {tuple(self._shape)} and {tuple(shape)} do not match")
        over_images, _, over_rows, over_columns = x.stride()
        over_pixels = over_columns if width > 1 else over_rows
        self._numbers += (x.data_ptr() + first * x.element_size(), over_images, over_pixels)

    def add_terms(self, entries: Sequence[Entry]) -> None:
        """Add features and their weights."""
        self.add(len(entries))
        for feature, weight in entries:
            self.add_feature(feature)
            if weight is None:
                self._numbers += (0, 0)
            else:
                weight = self._checked(weight)
                if weight.stride(1) != 1:
                    weight = self._in_line(weight)
                self._numbers += (weight.data_ptr(), weight.stride(0))

    def array(self) -> ctypes.Array[ctypes.c_int64]:
        """Return all of it; it holds as long as this object does."""
        return (ctypes.c_int64 * len(self._numbers))(*self._numbers)

    def _checked(self, x: Tensor) -> Tensor:
        if x.dtype != self._sums or not x.is_cpu:
            raise TypeError(f"{self._sums} on the CPU is needed, not {x.dtype} on {x.device}")
        return x

    def _in_line(self, x: Tensor) -> Tensor:
        line = x.contiguous()
        self._held.append(line)
        return line


def _fits(x: Tensor, dtype: torch.dtype) -> bool:
    """Return whether x is in this machine's memory with channels last, one stride over pixels."""
    if type(x) is not Tensor or not x.is_cpu or x.dtype != dtype:
        return False
    _, channels, height, width = x.shape
    _, over_channels, over_rows, over_columns = x.stride()
    in_line = height == 1 or width == 1 or over_rows == width * over_columns
    return in_line and (over_channels == 1 or channels == 1)
