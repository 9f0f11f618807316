"""What the operators share: when they are called, what they check, how features lie in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_switched_off = False


@contextmanager
def plain() -> Iterator[None]:
    """Within it, networks run in plain torch, without the operators.

    For torch.func's vmap and grad, which know no rule of the operators; for a compiler that is to
    see all operations; and to measure what the operators buy.

    >>> with plain():
    ...     accelerates(torch.ones(1))
    False
    """
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def accelerates(x: Tensor) -> bool:
    """Return whether the operators are to be used for it.

    Not for subclasses of tensors, such as torch.export's: they see torch's own operations.
    """
    return not _switched_off and type(x) is Tensor


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Accumulation dtype for reductions over numbers of that dtype."""
    return torch.promote_types(dtype, torch.float32)


def memory_format(x: Tensor) -> torch.memory_format:
    """Return in which order a feature lies in memory; it may be a slice of channels."""
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format


def empty(like: Tensor, channels: int) -> Tensor:
    """Return an uninitialised feature of that many channels, otherwise like the one given."""
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=memory_format(like)
    )


def check(name: str, x: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Check an operator's argument.

    Raises:
        ValueError: it has another shape.
        TypeError: it has another dtype.
    """
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it must be {tuple(shape)}")
    if x.dtype != dtype:
        raise TypeError(f"{name} is {x.dtype}; it must be {dtype}")
