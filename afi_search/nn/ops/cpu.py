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
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor

from afi_search.files import write_whole

SOURCE = Path(__file__).with_name("cpu.cpp")
OPTIONS = ("-std=c++17", "-O3", "-funroll-loops", "-fopenmp", "-fPIC", "-shared")
# What torch found the CPU able to, in a compiler's words.
AVX512 = ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mprefer-vector-width=512")
CAPABILITIES = {"AVX2": ("-mavx2", "-mfma"), "AVX512": (*AVX512, "-mfma")}
NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


class NativeWarning(UserWarning):
    """There is no native library on this machine; all works without, but slower on a CPU."""


def _run(name: str, *arguments: Any) -> None:
    """Call a kernel, which computes what the operator of its name says.

    Args:
        name: the kernel.
        arguments: tensors, None, lists of tensors, and numbers, which are passed apart. All
            features, B x C x H x W, have the dtype, B, H and W of the first.
    """
    row: list[int] = []
    scalars: list[float] = []
    for argument in arguments:
        if isinstance(argument, (int, float)):
            scalars.append(argument)
        elif isinstance(argument, list):
            row.append(len(argument))
            row += chain.from_iterable(map(_place, argument))
        else:
            row += _place(argument)
    like = next(x for x in arguments if isinstance(x, Tensor) and x.dim() == 4)
    batch, _, height, width = like.shape
    row = [batch, height * width, torch.get_num_threads(), *row]
    function = getattr(library(), f"{name}_{NAMES[like.dtype]}")
    function((ctypes.c_int64 * len(row))(*row), (ctypes.c_double * len(scalars))(*scalars))


weighted_sum = partial(_run, "weighted_sum")
channel_dots = partial(_run, "channel_dots")
join = partial(_run, "join")


def _place(x: Tensor | None) -> tuple[int, int, int, int]:
    """Return where a tensor is and, of a feature, channels and strides over images and pixels."""
    if x is None:
        return 0, 0, 0, 0
    if x.dim() != 4:
        return x.data_ptr(), 0, 0, 0
    return x.data_ptr(), x.shape[1], x.stride(0), x.stride(3) if x.shape[3] > 1 else x.stride(2)


@cache
def library() -> ctypes.CDLL | None:
    """Return the library, compiled if need be; None, after a warning, where that fails."""
    capability = torch.backends.cpu.get_cpu_capability()
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, *OPTIONS, *CAPABILITIES.get(capability, ())]
    try:
        return _loaded(command)
    except (OSError, subprocess.SubprocessError) as error:
        why = getattr(error, "stderr", None) or error
        warnings.warn(
            "no C++ compiler with OpenMP was found, so AFI takes longer on this CPU; "
            f"install g++, or name a compiler in CXX ({' '.join(command)}: {why})",
            NativeWarning,
            stacklevel=2,
        )
        return None


def _loaded(command: Sequence[str]) -> ctypes.CDLL:
    """Return the library that the command makes, from the cache if it has been made."""
    text = f"{shutil.which(command[0])} {command[1:]} {SOURCE.read_text()}"
    name = f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
    path = user_cache_path("afi_search") / "native" / name
    if path.exists():
        return ctypes.CDLL(str(path))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / name
        whole = [*command, str(SOURCE), "-o", str(made)]
        subprocess.run(whole, check=True, capture_output=True, text=True)
        with suppress(OSError):  # There is no cache to write to.
            write_whole(path, made.read_bytes())
        return ctypes.CDLL(str(made))
