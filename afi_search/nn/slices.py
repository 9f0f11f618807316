"""How the choices of a stage share their tensors.

A choice takes the first so many of each dimension, as many as it needs: of channels, of a scorer's
hidden units. But for what reads (X_i, R_i): there the channels of X_i come first and those of R_i
after the most that any choice's X_i has, so that R's are shared between the widths, too.

Which dimensions those are is read off the shapes that a stage has without AFI and in each width, so
that no backbone knows of this. What cannot be shared between widths is kept apart: add-on
attention, whatever has buffers (a batch norm's statistics are those of its width), and convolutions
in groups, whose groups read other channels in another width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from afi_search.nn.stage import split_channels
from afi_search.space import StageChoice, StageShape
from afi_search.space.architecture import OFF

WIDTHS = (None, StageChoice("base", 4), StageChoice("B", 4))

Run = tuple[int, int]
"""Where channels begin, and how many they are."""

Cut = tuple[int, tuple[Run, ...]]
"""A dimension, and what is taken of it."""


@dataclass(frozen=True)
class StageSharing:
    """What the choices of one stage share.

    Attributes:
        shape: of the stage.
        joined: the tensors' names and dimensions along which X_i and R_i are read.
        apart: the modules that each width has for itself.
        own: the most channels that X_i has in any choice.
    """

    shape: StageShape
    joined: frozenset[tuple[str, int]]
    apart: frozenset[str]
    own: int

    @classmethod
    def of(
        cls,
        shape: StageShape,
        choices: Sequence[StageChoice | None],
        stages: Sequence[nn.Module],
    ) -> StageSharing:
        """Compare the stage's modules in each of `WIDTHS`."""
        first, second = zip(*(split_channels(shape, choice) for choice in WIDTHS), strict=True)
        joined, apart = set(), set()
        for name, module in stages[0].named_modules():
            widths = [stage.get_submodule(name) for stage in stages]
            if name.split(".")[0] != "0" and list(module.buffers(recurse=False)):
                apart.add(name)
            for of, _ in module.named_parameters(recurse=False):
                shapes = zip(*(width.get_parameter(of).shape for width in widths), strict=True)
                for dimension, sizes in enumerate(shapes):
                    if sizes == second:
                        joined.add((f"{name}.{of}", dimension))
                    elif sizes != first and len(set(sizes)) > 1:
                        apart.add(name)
        own = max(split_channels(shape, choice)[0] for choice in choices)
        return cls(shape, frozenset(joined), frozenset(apart), own)

    def owner(self, choice: StageChoice | None, module: str) -> str:
        """Return under which name a module of a choice is shared."""
        width = OFF if choice is None else choice.width
        if choice is not None and module.split(".")[0] == "attention":
            return f"{module}[{width}-{choice.attention}]"
        return f"{module}[{width}]" if module in self.apart else module

    def runs(self, choice: StageChoice | None, tensor: str, size: torch.Size) -> list[list[Run]]:
        """Return what a choice's tensor of that name takes of each dimension of the shared one."""
        module = tensor.rpartition(".")[0]
        first, both = split_channels(self.shape, choice)
        parts = [(0, first), (self.own, both - first)]
        return [
            parts
            if (tensor, dimension) in self.joined
            and module not in self.apart
            and self.own > first < both
            else of
            for dimension, of in enumerate(whole(size))
        ]


def whole(size: torch.Size) -> list[list[Run]]:
    """Return what takes all of a tensor of that size."""
    return [[(0, length)] for length in size]


def written(shared: Tensor | None, runs: Sequence[Sequence[Run]], value: Tensor) -> Tensor:
    """Return the shared tensor, grown where that is needed, with a choice's values in their place.

    Args:
        shared: None before any.
        runs: where they are taken from, for each dimension.
        value: of the choice's shape.
    """
    ends = [max(start + length for start, length in of) for of in runs]
    before = (0,) * value.dim() if shared is None else shared.shape
    grown = value.new_zeros([max(pair) for pair in zip(ends, before, strict=True)])
    if shared is not None:
        grown[tuple(map(slice, before))] = shared
    positions = torch.arange(grown.numel()).view(grown.shape)
    grown.view(-1)[taken(positions, cuts(grown.shape, runs)).flatten()] = value.flatten()
    return grown


def cuts(size: torch.Size, runs: Sequence[Sequence[Run]]) -> tuple[Cut, ...]:
    """Return the dimensions of a shared tensor of that size of which not all is taken."""
    return tuple(
        (dimension, tuple(of))
        for dimension, (length, of) in enumerate(zip(size, runs, strict=True))
        if list(of) != [(0, length)]
    )


def taken(shared: Tensor, parts: Sequence[Cut]) -> Tensor:
    """Return what is taken of a shared tensor, laid out as `nn.Module.to` would lay it out.

    A copy of its own, in the strides that a network's weight has: kernels are chosen by them.
    """
    if not parts:
        return shared
    part = shared
    for dimension, runs in parts:
        each = [part.narrow(dimension, *run) for run in runs]
        part = each[0] if len(each) == 1 else torch.cat(each, dimension)
    is_last = part.dim() == 4 and part.shape[1] > 1 and not shared.is_contiguous()
    return part.clone(memory_format=torch.channels_last if is_last else torch.contiguous_format)
