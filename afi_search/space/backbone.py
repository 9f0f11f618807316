"""The backbones that can be searched, by name.

This layer needs to know how many stages there are and how wide and deep each of them is; how a
backbone is built as a torch module, `build` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

from afi_search.errors import UserError, did_you_mean


@dataclass(frozen=True)
class StageShape:
    """What the search space must know of a stage of a plain backbone.

    Attributes:
        channels: C, the output channels of the first convolution of blocks 2..N.
        blocks: N, the number of blocks, the transition block included.
    """

    channels: int
    blocks: int


@dataclass(frozen=True)
class Backbone:
    """A plain CNN, and the function that builds it with AFI in any of its stages.

    Attributes:
        name: as it is written in architecture texts and space files.
        stages: the stages in which AFI can be switched on.
        image_sizes: the input sizes it can be built for (up to 32: with the CIFAR stem).
        build: `build(architecture, num_classes=..., image_size=...)` returns the torch module; or
            where that function is, as "module:function", to be imported when it is first needed.
        ratios: the paper's reduction ratio r of each width for this family.
    """

    name: str
    stages: tuple[StageShape, ...]
    image_sizes: tuple[int, ...]
    build: Callable[..., Any] | str
    ratios: Mapping[str, int] = field(
        default_factory=lambda: MappingProxyType({"base": 4, "B": 16}), hash=False
    )

    @property
    def builder(self) -> Callable[..., Any]:
        """The function that builds the torch module, imported now where `build` names it."""
        return resolve_name(self.build) if isinstance(self.build, str) else self.build

    def demand_size(self, image_size: int) -> None:
        """Make sure that the backbone can be built for images of that size.

        Raises:
            UnsupportedImageSize: it cannot; the message lists the sizes it takes.
        """
        if image_size not in self.image_sizes:
            sizes = ", ".join(map(str, self.image_sizes))
            raise UnsupportedImageSize(
                f"{self.name} is not made for images of {image_size} pixels; it takes: {sizes}"
            )


class UnknownBackbone(UserError):
    """No backbone of that name is registered."""


class UnsupportedImageSize(UserError):
    """The backbone cannot be built for images of that size."""


_BACKBONES: dict[str, Backbone] = {}


def register(backbone: Backbone) -> Backbone:
    """Make a backbone known by its name; return it.

    Raises:
        ValueError: another backbone has that name.
    """
    if _BACKBONES.setdefault(backbone.name, backbone) != backbone:
        raise ValueError(f"a backbone named {backbone.name!r} is registered already")
    return backbone


def get_backbone(name: str) -> Backbone:
    """Return the backbone of that name.

    Raises:
        UnknownBackbone: there is none; the message lists those there are.
    """
    try:
        return _BACKBONES[name]
    except KeyError:
        names = backbone_names()
        raise UnknownBackbone(
            f"unknown backbone {name!r}.{did_you_mean(name, names)} There are: {', '.join(names)}"
        ) from None


def backbone_names() -> list[str]:
    """Return the names of all registered backbones, in order of registration."""
    return list(_BACKBONES)
