"""The functions of `cpu.cpp`, which the machine's C++ compiler makes once, in seconds.

A CPU runs what lies between convolutions at the speed of its memory, so these functions read and
write every feature as seldom as they can. torch's own operations, which stand in where there is no
compiler, pass over the features several times.

The functions take what those of the same name in `cuda` do, which says what that is.

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

import torch
from platformdirs import user_cache_path
from torch import Tensor

SOURCE = Path(__file__).with_name("cpu.cpp")
OPTIONS = ("-std=c++17", "-O3", "-fopenmp", "-fPIC", "-shared")
# What torch found the CPU able to, in a compiler's words.
AVX512 = ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mprefer-vector-width=512")
CAPABILITIES = {"AVX2": ("-mavx2", "-mfma"), "AVX512": (*AVX512, "-mfma")}
NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


class NativeWarning(UserWarning):
    """There is no native library on this machine; all works without, but slower on a CPU."""


def weighted_sum(
    out: Tensor,
    features: Sequence[Tensor],
    weights: Sequence[Tensor],
    start: Tensor | None = None,
    plus: Tensor | None = None,
    gate: Tensor | None = None,
    ceiling: float = 0.0,
) -> None:
    """Write start + plus + sum_j weights[j] * features[j] to `out`."""
    rows = (*map(_feature, (out, plus, gate)), _array(start), _terms(features, weights))
    _run("weighted_sum", out, *rows, ceiling=ceiling)


def channel_dots(out: Tensor, gradient: Tensor, features: Sequence[Tensor]) -> None:
    """Write the sums over the pixels of gradient * features[j] to `out`."""
    _run("channel_dots", gradient, _feature(gradient), _array(out), _terms(features))


def join(
    before: Tensor,
    ceiling: float,
    features: Sequence[Tensor],
    weights: Sequence[Tensor] | None,
    both: Tensor,
    means: Tensor,
    also: Tensor | None,
) -> None:
    """Write X and R side by side to `both`."""
    channels = before.shape[1]
    x, r = _feature(both[:, :channels]), _feature(both[:, channels:])
    terms = _terms(features, weights)
    rows = _feature(before), x, _feature(also), _array(means), r, terms
    _run("join", before, *rows, ceiling=ceiling)
    means /= before.shape[2] * before.shape[3]


def moments(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    batches: Tensor,
    momentum: float,
) -> None:
    """Write the mean and the variance of each channel, and update those that run."""
    count = x.numel() // x.shape[1]
    # Squares are of differences from a pixel, so that nothing is lost where the mean is large.
    origin = x[0, :, 0, 0].to(mean.dtype)
    sums = mean.new_empty(x.shape[0], 2, x.shape[1])
    _run("moments", x, _feature(x), _array(origin), _array(sums))
    shift, square = sums.sum(0, dtype=torch.float64).div_(count)
    mean.copy_(origin + shift)
    variance.copy_((square - shift * shift).clamp_(min=0.0))
    running_mean.lerp_(mean, momentum)
    running_variance.lerp_(variance * (count / (count - 1)), momentum)
    batches.add_(1)


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
    """Write (x - mean) / sqrt(variance + epsilon) * weight + bias + skip to `out`, activated."""
    of = mean, weight * torch.rsqrt(variance + epsilon), bias
    _run("normalise", x, *map(_feature, (x, skip, out)), *map(_array, of), ceiling=ceiling)


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
    """Return the gradients of x, weight, bias and, where `out` is given, of skip."""
    d_x, d_skip = torch.empty_like(x), None if out is None else torch.empty_like(x)
    spread = torch.rsqrt(variance + epsilon)
    of = mean, weight * spread, bias
    sums = mean.new_empty(x.shape[0], 2, x.shape[1])
    rows = *map(_feature, (d_out, x, out, d_skip)), *map(_array, (*of, sums))
    _run("normalise_sums", x, *rows, ceiling=ceiling)
    d_bias, products = sums.sum(0, dtype=torch.float64).to(mean.dtype)
    d_weight = products * spread
    count = x.numel() // x.shape[1]
    given, gate = (d_out, ceiling) if d_skip is None else (d_skip, None)
    less = d_bias / count, d_weight * spread / count  # named, as only their addresses are passed
    rows = *map(_feature, (given, x, d_x)), *map(_array, (*of, *less))
    _run("normalise_gradient", x, *rows, ceiling=gate)
    return [d_x, d_weight, d_bias, *([] if d_skip is None else [d_skip])]


def _run(name: str, like: Tensor, *arguments: Sequence[int], ceiling: float | None = None) -> None:
    """Call a function of the library.

    Args:
        name: the function.
        like: a feature of the dtype, B, H and W of all that it is called with.
        arguments: made by `_feature`, `_array` and `_terms`, in the order in which they are read.
        ceiling: where an activation ends; none where None.
    """
    batch, _, height, width = like.shape
    numbers = [batch, height * width, torch.get_num_threads()]
    for argument in arguments:
        numbers += argument
    row = (ctypes.c_int64 * len(numbers))(*numbers)
    _function(f"{name}_{NAMES[like.dtype]}")(row, ctypes.c_double(ceiling or 0.0))


def _feature(x: Tensor | None) -> tuple[int, ...]:
    """Pass a feature, or none."""
    if x is None:
        return 0, 0, 0, 0
    over_pixels = x.stride(3) if x.shape[3] > 1 else x.stride(2)
    return x.shape[1], x.data_ptr(), x.stride(0), over_pixels


def _array(x: Tensor | None) -> tuple[int]:
    """Pass numbers without gaps between them, or none."""
    return (0 if x is None else x.data_ptr(),)


def _terms(features: Sequence[Tensor], weights: Sequence[Tensor] | None = None) -> list[int]:
    """Pass features and their weights, B x C each."""
    row = [len(features)]
    for j, x in enumerate(features):
        weight = (0, 0) if weights is None else (weights[j].data_ptr(), x.shape[1])
        row += (*_feature(x), *weight)
    return row


@torch.compiler.assume_constant_result
def available() -> bool:
    """Return whether there is a library; a compiler takes the answer as it is."""
    return library() is not None


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
def _function(name: str) -> Callable[..., None]:
    found = library()
    assert found is not None
    function: Callable[..., None] = getattr(found, name)
    function.restype = None  # type: ignore[attr-defined]
    return function
