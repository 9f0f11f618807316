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

from collections.abc import Iterable, Sequence
from itertools import accumulate, product
from typing import Any

import torch
from torch import Tensor, nn

from afi_search.nn.stage import split_channels
from afi_search.space import StageChoice, StageShape
from afi_search.space.architecture import OFF

WIDTHS = (None, StageChoice("base", 4), StageChoice("B", 4))

Run = tuple[int, int]
"""Where channels begin, and how many they are."""

Piece = tuple[tuple[slice, ...], tuple[slice, ...]]
"""Where it lies in a shared tensor, and where in what is taken of that."""


class StageSharing:
    """What the choices of one stage share.

    Args:
        stages: the stage in each of `WIDTHS`, to see which dimensions X_i and R_i are read along,
            and which modules each width has for itself.
    """

    def __init__(
        self,
        shape: StageShape,
        choices: Sequence[StageChoice | None],
        stages: Sequence[nn.Module],
    ) -> None:
        self._shape = shape
        self._own = max(split_channels(shape, choice)[0] for choice in choices)
        self._apart, joined = set[str](), set[tuple[str, str, int]]()
        first, second = zip(*(split_channels(shape, choice) for choice in WIDTHS), strict=True)
        for name, module in stages[0].named_modules():
            widths = [stage.get_submodule(name) for stage in stages]
            if name.split(".")[0] != "0" and list(module.buffers(recurse=False)):
                self._apart.add(name)
            for of, _ in module.named_parameters(recurse=False):
                shapes = zip(*(width.get_parameter(of).shape for width in widths), strict=True)
                for dimension, sizes in enumerate(shapes):
                    if sizes == second:
                        joined.add((name, of, dimension))
                    elif sizes != first and len(set(sizes)) > 1:
                        self._apart.add(name)
        self._joined = {(f"{name}.{of}", d) for name, of, d in joined if name not in self._apart}

    def owner(self, choice: StageChoice | None, module: str) -> str:
        """Return under which name a module of a choice is shared."""
        width = OFF if choice is None else choice.width
        if choice is not None and module.split(".")[0] == "attention":
            return f"{module}[{width}-{choice.attention}]"
        return f"{module}[{width}]" if module in self._apart else module

    def runs(self, choice: StageChoice | None, tensor: str, size: torch.Size) -> list[list[Run]]:
        """Return what a choice's tensor of that name takes of each dimension of the shared one."""
        first, both = split_channels(self._shape, choice)
        if not self._own > first < both:
            return whole(size)
        parts = [(0, first), (self._own, both - first)]
        return [parts if (tensor, d) in self._joined else of for d, of in enumerate(whole(size))]


def whole(size: torch.Size) -> list[list[Run]]:
    """Return what takes all of a tensor of that size."""
    return [[(0, length)] for length in size]


def pieces(runs: Sequence[Sequence[Run]]) -> tuple[Piece, ...]:
    """Return where the runs of each dimension lie in a shared tensor and in what is taken of it."""
    places = []
    for of in runs:
        ends = accumulate(length for _, length in of)
        pairs = zip(of, ends, strict=True)
        places.append([(slice(at, at + size), slice(end - size, end)) for (at, size), end in pairs])
    return tuple(
        (tuple(there for there, _ in one), tuple(here for _, here in one))
        for one in product(*places)
    )


def written(shared: Tensor | None, where: Sequence[Piece], value: Tensor) -> Tensor:
    """Return the shared tensor, grown where that is needed, a choice's values in their place."""
    before = (0,) * value.dim() if shared is None else shared.shape
    ends = [[there[dimension].stop for there, _ in where] for dimension in range(value.dim())]
    grown = value.new_zeros([max(size, *of) for size, of in zip(before, ends, strict=True)])
    if shared is not None:
        grown[tuple(map(slice, before))] = shared
    for there, here in where:
        grown[there] = value[here]
    return grown


class Cutting(torch.autograd.Function):
    """Tensors that are taken of shared ones, each laid out as `nn.Module.to` would lay it out.

    Copies of their own, in the strides that a network's weights have: kernels are chosen by them.
    One call copies all of them, and one all gradients: on a GPU, calls cost more than the copying.
    """

    @staticmethod
    def forward(
        ctx: Any, sizes: list[torch.Size], places: list[tuple[Piece, ...]], *shared: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.places, ctx.shared = places, shared
        cut = [
            torch.empty(
                size, dtype=of.dtype, device=of.device, memory_format=_memory_format(size, of)
            )
            for size, of in zip(sizes, shared, strict=True)
        ]
        sources, targets = _paired(places, shared, cut)
        torch._foreach_copy_(targets, sources)
        return tuple(cut)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        known = {n: gradient for n, gradient in enumerate(gradients) if gradient is not None}
        into = {n: torch.empty_like(ctx.shared[n]) for n in known}
        if known:
            torch._foreach_zero_(list(into.values()))
            places = [ctx.places[n] for n in known]
            torch._foreach_copy_(*_paired(places, into.values(), known.values()))
        return None, None, *map(into.get, range(len(gradients)))


def _paired(
    places: Iterable[Sequence[Piece]], shared: Iterable[Tensor], cut: Iterable[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the same pieces of shared tensors and of what is taken of them, as views."""
    pairs = [
        (one[there], other[here])
        for where, one, other in zip(places, shared, cut, strict=True)
        for there, here in where
    ]
    there, here = zip(*pairs, strict=True)
    return list(there), list(here)


def _memory_format(size: torch.Size, shared: Tensor) -> torch.memory_format:
    is_last = len(size) == 4 and size[1] > 1 and not shared.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format
