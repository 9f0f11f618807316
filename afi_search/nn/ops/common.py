"""What the operators share: how they are declared, when they are called, how features lie."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from subprocess import SubprocessError
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16)

PARTS = ("join", "weigh", "normalise")
"""What has operators, by the name of one: AFI's sums, its scores, and batch norms."""

_switched_off: frozenset[str] = frozenset()


@contextmanager
def plain(*parts: str) -> Iterator[None]:
    """Within it, networks run in plain torch, without the operators, or without those of some part.

    For torch.func's vmap and grad, which know no rule of the operators; for a compiler that is to
    see all operations; and to measure what the operators buy.

    >>> with plain():
    ...     accelerates(torch.ones(1, 1, 1, 1), "join")
    False
    """
    global _switched_off
    before, _switched_off = _switched_off, _switched_off.union(parts or PARTS)
    try:
        yield
    finally:
        _switched_off = before


def accelerates(x: Tensor, part: str) -> bool:
    """Return whether the operators of a part are to be used for x.

    They take features with channels last, B x C x H x W, and pooled ones, on a GPU whose kernels
    Triton can make. On `meta` AFI's sums tell what they keep in memory. Not subclasses of tensors,
    such as torch.export's: they see torch's own operations.
    """
    if part in _switched_off or type(x) is not Tensor or x.dtype not in DTYPES:
        return False
    if x.is_meta:
        return part == "join"
    lies_so = x.dim() != 4 or x.is_contiguous(memory_format=torch.channels_last)
    return lies_so and has_kernel(part, x.device.type)


def operator(*mutated: str) -> Callable[[Callable[..., Any]], Any]:
    """Make an operator, afi::NAME, of a function NAME that allocates what it returns.

    The function is also the operator's rule for fake tensors. What it has allocated is filled by
    the function of the same name of `cuda`, which gets it, and then all arguments: features with
    one stride from pixel to pixel, all else without gaps. The first argument is on the device;
    those that are named as `mutated` are changed by the kernels.
    """

    def declare(allocate: Callable[..., Any]) -> Any:
        def run(*given: Any) -> Any:
            made = allocate(*given)
            filled = made if isinstance(made, tuple) else (made,)
            getattr(kernels(given[0].device.type), name)(*filled, *map(_laid, given))
            return made

        name = allocate.__name__
        schema = torch.library.infer_schema(allocate, mutates_args=mutated)
        made = torch.library.custom_op(f"afi::{name}", run, mutates_args=mutated, schema=schema)
        made.register_fake(allocate)
        return made

    return declare


def has_kernel(name: str, device: str) -> bool:
    """Return whether that kernel runs on such a device; a compiler takes the answer as it is."""
    return hasattr(kernels(device), name)


# As torch.compiler.assume_constant_result does, which imports all of Dynamo, a second.
has_kernel._dynamo_marked_constant = True  # type: ignore[attr-defined]


def kernels(device: str) -> ModuleType | None:
    """Return the module with the kernels of a device; None where they cannot be made to run."""
    return _triton() if device == "cuda" else None


def _laid(given: Any) -> Any:
    if isinstance(given, Tensor):
        return in_rows(given) if given.dim() == 4 else given.contiguous()
    return [_laid(one) for one in given] if isinstance(given, list) else given


@cache
def _triton() -> ModuleType | None:
    """Return Triton's kernels; None, after a warning, where Triton cannot make them run."""
    try:
        from afi_search.nn.ops import cuda

        one = torch.ones(1, 1, 1, 1, device="cuda")
        cuda.weighted_sum(torch.empty_like(one), one, [one], [one[0, :, 0]], None, None, None, 0.0)
    except (ImportError, OSError, RuntimeError, AssertionError, SubprocessError) as error:
        warnings.warn(
            "Triton cannot run its kernels, so training takes longer on this GPU; it needs gcc and "
            f"Python's headers ({error})",
            stacklevel=2,
        )
        return None
    return cuda


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Accumulation dtype for reductions over numbers of that dtype."""
    return torch.promote_types(dtype, torch.float32)


def in_rows(x: Tensor) -> Tensor:
    """Return a feature with channels last and one stride from pixel to pixel of all images.

    A slice of the channels of such a feature is returned as it is.
    """
    if x.is_contiguous(memory_format=torch.channels_last):
        return x
    height, width = x.shape[2:]
    stride = pixel_stride(x)
    strides = height * width * stride, 1, width * stride, stride
    lies_so = all(x.shape[d] == 1 or x.stride(d) == strides[d] for d in range(4))
    return x if lies_so else x.contiguous(memory_format=torch.channels_last)


def pixel_stride(x: Tensor) -> int:
    """Return the stride from pixel to pixel, and from image to image if there is but one."""
    over_images, _, over_rows, over_columns = x.stride()
    return over_columns if x.shape[3] > 1 else over_rows if x.shape[2] > 1 else over_images


def empty(like: Tensor, channels: int) -> Tensor:
    """Return an uninitialised feature of that many channels, otherwise like the one given."""
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
