"""A block's scores and the softmax over its sources as one operator, on a GPU.

What is pooled is tiny, so that torch's own kernels cost what launching and waiting for each other
costs; here they are one forward and two backward. A step of AFI-ResNet-32 has 117 kernels fewer of
615 (with the gradients of pooled features added up at once, counted without a GPU), and takes 0.90
of the time without them on an H100 (bf16, batch 128; fp32 0.92, AFI-ResNet-110 0.95).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from afi_search.nn.ops.common import accelerates, operator

PROGRAMS = 128
"""Parts of a batch, at most, whose gradients of a scorer's weights are summed apart."""

LARGEST = 2**13
"""Numbers of a weight matrix, at most, rows and columns counted up to powers of 2: a program holds
both matrices and their gradients in registers."""


def weighed(reduce: Tensor, expand: Tensor, notes: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return softmax_j(W2 ReLU(W1 z_j)), sources x B x C, and the z_j for the next reader.

    Taken from here, the z_j bring what later readers' gradients are, so that they are added up at
    once. None where the operator is of no use.

    Args:
        reduce, expand: W1, hidden x C, and W2, C x hidden.
        notes: z_j, sources x B x C.
    """
    if not accelerates(notes, "weigh") or notes.dtype != reduce.dtype or _size(reduce) > LARGEST:
        return None
    made: tuple[Tensor, Tensor] = Weigh.apply(reduce, expand, notes)
    return made


def _size(reduce: Tensor) -> int:
    hidden, channels = (1 << (n - 1).bit_length() for n in reduce.shape)
    return hidden * channels


class Weigh(torch.autograd.Function):
    """What `weighed` returns."""

    @staticmethod
    def forward(ctx: Any, reduce: Tensor, expand: Tensor, notes: Tensor) -> tuple[Tensor, Tensor]:
        weights: Tensor = weigh(reduce, expand, notes)
        ctx.save_for_backward(weights, reduce, expand, notes)
        ctx.set_materialize_grads(False)
        return weights, notes

    @staticmethod
    def backward(
        ctx: Any, d_weights: Tensor | None, later: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if d_weights is None:
            return None, None, later
        weights, reduce, expand, notes = ctx.saved_tensors
        d_notes, parts = weigh_backward(d_weights, weights, reduce, expand, notes, later)
        d_reduce, d_expand = parts.sum(0)
        return d_reduce.view_as(reduce), d_expand.view_as(expand), d_notes


@operator()
def weigh(reduce: Tensor, expand: Tensor, notes: Tensor) -> Tensor:
    """Return the weights that `weighed` does."""
    return torch.empty_like(notes)


@operator()
def weigh_backward(
    d_weights: Tensor,
    weights: Tensor,
    reduce: Tensor,
    expand: Tensor,
    notes: Tensor,
    later: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the z_j, and parts of those of W1 and W2.

    The parts, of some images each, are parts x 2 x (C * hidden).

    Args:
        d_weights, weights, notes: sources x B x C.
        reduce, expand: as `weigh` took them.
        later: later readers' gradient of the z_j.
    """
    parts = min(PROGRAMS, notes.shape[1])
    return torch.empty_like(notes), reduce.new_empty(parts, 2, reduce.numel())
