"""Choosing images so that every class keeps its share; the choice never changes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# The order of the images within each class. RandomState's stream is frozen by NumPy's policy,
# so that the split is the same on every machine and in every version.
ORDER_SEED = 20_240


def apportion(counts: list[int], total: int) -> list[int]:
    """Share `total` out in proportion to `counts`, by largest remainders.

    No share exceeds its count where total <= sum(counts). Equal remainders go to the lower index.
    """
    everything = sum(counts)
    shares = [total * count // everything for count in counts]
    remainders = [total * count % everything for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda index: (-remainders[index], index))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def held_out(labels: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the images kept and of `total` images held out, both ascending.

    Args:
        labels: N, int64.
        total: 0 <= total <= N.
    """
    classes, counts = torch.unique(labels, return_counts=True)
    shares = apportion(counts.tolist(), total)
    order = np.random.RandomState(ORDER_SEED)
    kept, held = [], []
    for label, share in zip(classes.tolist(), shares, strict=True):
        members = torch.nonzero(labels == label).flatten()
        shuffled = members[torch.from_numpy(order.permutation(len(members)))]
        held.append(shuffled[:share])
        kept.append(shuffled[share:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values
