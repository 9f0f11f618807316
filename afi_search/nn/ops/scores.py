"""A block's scores and the softmax over its sources as one operator, on a GPU.

What is pooled is tiny, so that torch's own dozen kernels forward and backward cost what launching
and waiting for each other costs; here they are one and two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from afi_search.nn.ops.common import accelerates, operator

PROGRAMS = 128
"""Parts of a batch, at most, whose gradients of a scorer's weights are summed apart."""

LARGEST = 2**13
"""Numbers of a weight matrix, at most, rows and columns counted up to powers of 2: a program holds
both matrices and their gradients in registers."""


def weighed(
    reduce: Tensor, expand: Tensor, notes: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]] | None:
    """Return softmax_j(W2 ReLU(W1 z_j)), sources x B x C, and every z_j for the next reader.

    Taken from here, the z_j bring what later readers' gradients are, so that they are added up at
    once. None where the operator is of no use.

    Args:
        reduce, expand: W1, hidden x C, and W2, C x hidden.
        notes: z_j, B x C.
    """
    first = notes[0]
    if not accelerates(first, "sums") or first.dtype != reduce.dtype or _size(reduce) > LARGEST:
        return None
    weights, *again = Weigh.apply(reduce, expand, *notes)
    return weights, again


def _size(reduce: Tensor) -> int:
    hidden, channels = (1 << (n - 1).bit_length() for n in reduce.shape)
    return hidden * channels


class Weigh(torch.autograd.Function):
    """What `weighed` returns."""

    @staticmethod
    def forward(ctx: Any, reduce: Tensor, expand: Tensor, *notes: Tensor) -> tuple[Tensor, ...]:
        weights: Tensor = weigh(reduce, expand, list(notes))
        ctx.save_for_backward(weights, reduce, expand, *notes)
        ctx.set_materialize_grads(False)
        return weights, *notes

    @staticmethod
    def backward(
        ctx: Any, d_weights: Tensor | None, *d_notes: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        weights, reduce, expand, *notes = ctx.saved_tensors
        if d_weights is None:
            return None, None, *d_notes
        if any(d is None for d in d_notes):
            some = any(d is not None for d in d_notes)
            pairs = zip(d_notes, notes, strict=True)
            d_notes = tuple(torch.zeros_like(z) if d is None else d for d, z in pairs if some)
        d_all, parts = weigh_backward(d_weights, weights, reduce, expand, notes, list(d_notes))
        d_reduce, d_expand = parts.sum(0)
        return d_reduce.view_as(reduce), d_expand.view_as(expand), *d_all.unbind()


@operator()
def weigh(reduce: Tensor, expand: Tensor, notes: list[Tensor]) -> Tensor:
    """Return the weights that `weighed` does."""
    return notes[0].new_empty(len(notes), *notes[0].shape)


@operator()
def weigh_backward(
    d_weights: Tensor,
    weights: Tensor,
    reduce: Tensor,
    expand: Tensor,
    notes: list[Tensor],
    d_notes: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """Return the gradients of z_j, sources x B x C, and parts of those of W1 and W2.

    The parts, of some images each, are parts x 2 x (C * hidden).

    Args:
        d_weights, weights: sources x B x C.
        reduce, expand, notes: as `weigh` took them.
        d_notes: what later readers' gradients are, B x C, or nothing.
    """
    parts = min(PROGRAMS, notes[0].shape[0])
    return torch.empty_like(weights), reduce.new_empty(parts, 2, reduce.numel())
