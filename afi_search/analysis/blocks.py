"""The searched stages' blocks of a network, by their place."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from afi_search.nn import Block, searched_stages


class Place(NamedTuple):
    """Where a block is: its stage and its number in it, both from 1."""

    stage: int
    block: int


def blocks_of(model: nn.Module) -> dict[Place, Block]:
    """Return the blocks of all searched stages, in order."""
    return {
        Place(number, index): block
        for number, stage in enumerate(searched_stages(model).values(), start=1)
        for index, block in enumerate(stage, start=1)
    }
