"""A block in steps: what a family writes, and where a stage can step in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from afi_search.nn.rectify import rectify_

Step = Callable[[Tensor], Tensor]


class Block(nn.Module, ABC):
    """A block in steps, so that AFI can step in before its second convolution.

    Attributes:
        ceiling: where the activation after the first convolution ends: 6 for ReLU6.
        second_is_rectified: whether `second` ends in an activation, so that nothing it returns is
            below zero.
        second_is_source: whether what `second` returns may be a source of the stage where X_i is
            none. Only then must it be after batch norm.
    """

    ceiling: float = math.inf
    second_is_rectified: bool = False
    second_is_source: bool = True

    @abstractmethod
    def first(self, x: Tensor) -> Tensor:
        """Return the first convolution's output after batch norm, before its activation."""

    def activate(self, y: Tensor) -> Tensor:
        """Return the feature X_i, given what `first` returned, which is overwritten."""
        return rectify_(y, self.ceiling)

    @abstractmethod
    def second(self, feature: Tensor) -> Tensor:
        """Return the second convolution's output, as a rule after batch norm and its activation.

        `feature` is what the second convolution reads: X_i, or X_i and R, concatenated.
        """

    @abstractmethod
    def last(self, y: Tensor, x: Tensor) -> Tensor:
        """Finish the block, given what `second` returned and the block's input.

        What is returned has the height and width of `y`.
        """

    def forward(self, x: Tensor, activate: Step | None = None, note: Step | None = None) -> Tensor:
        """Run the block.

        Args:
            x: its input.
            activate: makes of the first step's output what the second reads; the block's own
                activation where None.
            note: is shown what `second` returned, and returns it.
        """
        # One expression, so that no tensor outlives its use.
        return self.last(
            (note or unchanged)(self.second((activate or self.activate)(self.first(x)))), x
        )


def unchanged(x: Tensor) -> Tensor:
    """Return what was given."""
    return x
