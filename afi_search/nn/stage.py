"""A stage that carries features from block to block: the one place where AFI meets a backbone.

A family writes its blocks in steps (`Block`) and hands the stage a function that makes them;
everything about AFI is decided here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn.afi import AFI, BlockAFI, Reading, StageAFI, rectify_
from afi_search.nn.ops.common import accelerates
from afi_search.nn.ops.gathered import GatheredReading
from afi_search.space import ATTENTIONS, StageChoice, StageShape
from afi_search.space.architecture import afi_channels, hidden_units

Step = Callable[[Tensor], Tensor]


def unchanged(x: Tensor) -> Tensor:
    """Return what was given."""
    return x


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

    def forward(self, x: Tensor, activate: Step | None = None, note: Step = unchanged) -> Tensor:
        """Run the block.

        Args:
            activate: makes of the first step's output what the second reads; the block's own
                activation where None.
            note: is shown what `second` returned, and returns it.
        """
        if activate is None:
            activate = self.activate
        # One expression, so that no tensor outlives its use.
        return self.last(note(self.second(activate(self.first(x)))), x)


MakeBlock = Callable[[int, int], Block]


class Stage(nn.Module):
    """Blocks 1..N of a stage, with AFI in blocks 2..N where a choice is given.

    Block i reads the sources X_1 .. X_{i-1}. X_1 comes from the transition block: the first C'
    channels of its first or else its second convolution's output, whichever has the stage's size
    and enough channels. Where neither has, the list starts with X_2, which block 2 reads itself.

    The blocks are the children "0", "1", ..., as in an nn.Sequential; AFI is the child `afi`.

    Args:
        shape: the plain stage's channels and number of blocks.
        choice: how AFI is built in; None leaves the stage as it is.
        transition: block 1, which AFI never changes.
        make_block: makes one of the blocks 2..N, given the output channels of its first convolution
            and the input channels of its second.

    Raises:
        UserError: the choice's attention has no meaning for so few channels.
    """

    afi: AFI | None

    def __init__(
        self,
        shape: StageShape,
        choice: StageChoice | None,
        transition: Block,
        make_block: MakeBlock,
    ) -> None:
        super().__init__()
        first, second = split_channels(shape, choice)
        self.depth = shape.blocks
        self.add_module("0", transition)
        for index in range(1, shape.blocks):
            self.add_module(str(index), make_block(first, second))
        if choice is None:
            self.afi = None
            return
        channels = afi_channels(shape, choice.width)
        kind: type[AFI] = StageAFI if choice.scorer == "stage" else BlockAFI
        hidden = hidden_units(channels, choice.ratio)
        self.afi = kind(channels, hidden, readers=self.depth - 1)
        self.attention = nn.ModuleList(
            ATTENTIONS.get(choice.attention).layer(channels) if choice.attention else nn.Identity()
            for _ in range(self.depth - 1)
        )

    def __iter__(self) -> Iterator[Block]:
        return (cast(Block, self.get_submodule(str(index))) for index in range(self.depth))

    def forward(self, x: Tensor) -> Tensor:
        if self.afi is not None:
            return self._integrating(x, self.afi)
        for block in self:
            x = block(x)
        return x

    def _integrating(self, x: Tensor, afi: AFI) -> Tensor:
        transition, *readers = self
        reading = (GatheredReading if accelerates(x, "join") else Reading)(afi)
        held: list[Tensor] = []

        def hold(y: Tensor) -> Tensor:
            held.append(transition.activate(y))
            return held[0]

        def choose(second: Tensor) -> Tensor:
            source = transition_source(transition, held.pop(), second, afi.channels)
            if source is not None:
                reading.add(source)
            return second

        x = transition(x, hold, choose)
        for block, attention in zip(readers, self.attention, strict=True):
            join = partial(reading.join, ceiling=block.ceiling, attention=attention)
            x = block(x, join)
        return x


def split_channels(shape: StageShape, choice: StageChoice | None) -> tuple[int, int]:
    """Return first convolution's output and second's input channels for blocks 2..N."""
    if choice is None:
        return shape.channels, shape.channels
    integrated = afi_channels(shape, choice.width)
    first = shape.channels if choice.width == "B" else shape.channels - integrated
    return first, first + integrated


def transition_source(
    transition: Block, first: Tensor, second: Tensor, channels: int
) -> Tensor | None:
    """Return what X_1 is the first channels of, from what the transition block computed, or None.

    Args:
        first: its X, after its activation.
        second: its second convolution's output, of the stage's height and width; ReLU is applied
            here where the block does not do it.
    """
    if first.shape[2:] == second.shape[2:] and first.shape[1] >= channels:
        return first
    if not transition.second_is_source or second.shape[1] < channels:
        return None
    return second if transition.second_is_rectified else F.relu(second)


def searched_stages(model: nn.Module) -> dict[str, Stage]:
    """Return the stages of a network by their names in it, as in `named_modules`, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Stage)}


def afi_weights(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Run the model on images and return the weights of every block that has AFI.

    The model is run as it stands (train or eval mode), without gradients.

    Returns:
        block's name in the model, as in `named_modules`, to its weights, B x sources x C', the
        sources in order from the oldest.
    """
    seen: dict[str, list[Tensor]] = {}
    with ExitStack() as hooks, torch.no_grad():
        for name, stage in searched_stages(model).items():
            if stage.afi:
                hooks.enter_context(stage.afi.watched(seen.setdefault(name, [])))
        model(images)
    return {
        f"{name}.{block}": weights.transpose(0, 1)
        for name, of_blocks in seen.items()
        for block, weights in enumerate(of_blocks, start=1)
    }
