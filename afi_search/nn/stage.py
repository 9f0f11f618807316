"""A stage that carries features from block to block: the one place where AFI meets a backbone.

A family writes its blocks in steps (`Block`) and hands the stage a function that makes them;
everything about AFI is decided here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn.afi import AFI, BlockAFI, Reading, Scorer, StageAFI, Sums, rectify_
from afi_search.nn.attention import make_attention
from afi_search.nn.ops.common import accelerates, plain
from afi_search.nn.ops.gathered import GatheredSums
from afi_search.space import StageChoice, StageShape
from afi_search.space.architecture import afi_channels, hidden_units

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
        AttentionTooNarrow: the choice's attention has no meaning for so few channels.
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
        self.channels = afi_channels(shape, choice.width)
        kind: type[AFI] = StageAFI if choice.scorer == "stage" else BlockAFI
        hidden = hidden_units(self.channels, choice.ratio)
        self.afi = kind(self.channels, hidden, readers=self.depth - 1)
        self.attention = nn.ModuleList(
            make_attention(choice.attention, self.channels) if choice.attention else nn.Identity()
            for _ in range(self.depth - 1)
        )

    def __iter__(self) -> Iterator[Block]:
        return (cast(Block, self.get_submodule(str(index))) for index in range(self.depth))

    def forward(self, x: Tensor) -> Tensor:
        return self._plain(x) if self.afi is None else self._integrating(x, self.afi)

    def first_source(self, x: Tensor) -> int:
        """Return the number of the first feature that is a source, given the stage's input.

        That is 1, or 2 where the transition block offers none. Only for a stage with AFI.
        """
        transition = next(iter(self))
        feature = transition.activate(transition.first(x))
        second = transition.second(feature)
        return 1 if transition_source(transition, feature, second, self.channels) is not None else 2

    def _plain(self, x: Tensor) -> Tensor:
        for block in self:
            x = block(x)
        return x

    def _integrating(self, x: Tensor, afi: AFI) -> Tensor:
        transition, *readers = self
        state = StageState(afi, self.channels, GatheredSums() if accelerates(x, "sums") else Sums())
        x = transition(x, partial(state.hold, transition), partial(state.choose, transition))
        for block, attention in zip(readers, self.attention, strict=True):
            x = block(x, partial(state.join, block, attention))
        return x


class StageState:
    """What a stage carries from block to block in one forward pass.

    Args:
        afi: of the stage.
        channels: C' of its features.
        sums: how features are added up.
    """

    def __init__(self, afi: AFI, channels: int, sums: Sums) -> None:
        self._afi = afi
        self._channels = channels
        self._sums = sums
        self._reading = Reading(afi)
        self._held: Tensor | None = None

    def hold(self, transition: Block, y: Tensor) -> Tensor:
        """Activate the transition block's feature; keep it until it is known whether it fits."""
        self._held = transition.activate(y)
        return self._held

    def choose(self, transition: Block, second: Tensor) -> Tensor:
        """Take X_1 from the transition block, given its second convolution's output."""
        assert self._held is not None
        source = transition_source(transition, self._held, second, self._channels)
        self._held = None
        if source is not None:
            self._add(source)
        return second

    def join(self, block: Block, attention: nn.Module, y: Tensor) -> Tensor:
        """Return (X_i, R_i) for a block, B x (C + C') x H x W, given X_i before its activation."""
        afi, sums, reading = self._afi, self._sums, self._reading
        if not reading.sources:  # the block's own feature is the first
            feature = block.activate(y)
            self._add(feature)
            integrated = sums.weighted_sum(*reading.read())
            reading.end(sums.source(integrated))
            return torch.cat((feature, attention(integrated)), dim=1)
        readers = afi.count_readers(reading.reader + 1)
        if isinstance(attention, nn.Identity):
            given = *reading.read(), readers, readers * afi.rereads
            joined = sums.join(y, block.ceiling, *given)
            reading.end(joined.integrated)
        else:
            integrated = sums.weighted_sum(*reading.read())
            reading.end(sums.source(integrated))
            attended = sums.source(attention(integrated))
            joined = sums.join(y, block.ceiling, [attended], None, readers, 0)
        if readers:
            reading.add(joined.feature, joined.pooled)
        return joined.both

    def _add(self, feature: Tensor) -> None:
        readers = self._afi.count_readers(self._reading.reader)
        self._reading.add(*self._sums.pool(feature, self._channels, readers))


def unchanged(x: Tensor) -> Tensor:
    """Return what was given."""
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
        transition: the block.
        first: its X, after its activation.
        second: its second convolution's output, of the stage's height and width; ReLU is applied
            here where the block does not do it.
        channels: C'.
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
    hooks: list[Any] = []
    stages = searched_stages(model).items()
    integrating = {name: stage.afi for name, stage in stages if stage.afi is not None}
    for name, afi in integrating.items():
        collect = _appender(seen.setdefault(name, []))
        scorers = [module for module in afi.modules() if isinstance(module, Scorer)]
        hooks += [scorer.register_forward_hook(collect) for scorer in scorers]
    try:
        with torch.no_grad(), plain("sums"):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        f"{name}.{block}": weights
        for name, afi in integrating.items()
        for block, weights in enumerate(afi.weights(seen[name]), start=1)
    }


def _appender(to: list[Tensor]) -> Callable[[nn.Module, object, Tensor], None]:
    return lambda _module, _inputs, output: to.append(output)
