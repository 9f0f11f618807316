"""The backbones that can be searched, by name: those of the package, and where others register.

Only their stages' shapes are known here, so that a space is read, counted and shown without torch;
the module that builds a backbone is imported when the first one is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

from afi_search.errors import UserError
from afi_search.registry import Registry

CIFAR_SIZES = (16, 24, 32)
IMAGE_SIZES = (*CIFAR_SIZES, 64, 96, 128, 160, 192, 224, 256, 288)
IMAGENET_SIZE = 224


@dataclass(frozen=True)
class StageShape:
    """What the search space must know of a stage of a plain backbone.

    Attributes:
        channels: C, the output channels of the first convolution of blocks 2..N.
        blocks: N, the number of blocks, the transition block included.

    >>> StageShape(channels=64, blocks=5)
    StageShape(channels=64, blocks=5)
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

    >>> resnet32 = BACKBONES.get("resnet32")
    >>> [stage.channels for stage in resnet32.stages], dict(resnet32.ratios)
    ([16, 32, 64], {'base': 4, 'B': 16})
    >>> resnet32.require_size(224)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    afi_search.errors.UserError: resnet32 is not made for images of 224 pixels; it takes: ...
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

    def require_size(self, image_size: int) -> None:
        """Make sure that it can be built for images of that size: else a UserError."""
        if image_size not in self.image_sizes:
            sizes = ", ".join(map(str, self.image_sizes))
            raise UserError(
                f"{self.name} is not made for images of {image_size} pixels; it takes: {sizes}"
            )


BACKBONES = Registry[Backbone]("backbone")


def register_backbone(backbone: Backbone) -> Backbone:
    """Make a backbone known by its name; return it.

    A whole module is docs/examples/toynet.py, beside a space file that has `imports: [toynet]` and
    `backbone: toynet`. A network is made of a `Stage` of each shape, and its blocks of two steps:

    ```python
    SHAPE = StageShape(channels=16, blocks=4)

    def build_toy(architecture, *, num_classes, image_size):
        ...  # Stage(SHAPE, architecture.stages[0], transition, block) and a classifier

    afi_search.register_backbone(Backbone("toynet", (SHAPE,), (16, 32), build_toy))
    ```

    Raises:
        ValueError: another backbone has that name.

    >>> shape = StageShape(channels=16, blocks=4)
    >>> register_backbone(Backbone("toy", (shape,), (16, 32), "mine:build_toy")).name
    'toy'
    """
    return BACKBONES.register(backbone.name, backbone)


def get_backbone(name: str) -> Backbone:
    """Return the backbone of that name; UnknownName lists those there are.

    >>> get_backbone("resnet32").stages[0]
    StageShape(channels=16, blocks=5)
    """
    return BACKBONES.get(name)


_SHAPES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], str]] = {
    **{
        f"resnet{6 * n + 2}": ((16, 32, 64), (n, n, n), CIFAR_SIZES, "resnet:build_cifar_resnet")
        for n in (3, 5, 7, 9, 18)
    },
    **{
        f"{prefix}resnet{sum(blocks) * 3 + 2}": ((64, 128, 256, 512), blocks, IMAGE_SIZES, build)
        for prefix, build in (("", "resnet:build_imagenet_resnet"), ("se", "resnet:build_seresnet"))
        for blocks in ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3))
    },
    "mobilenetv2": (
        (144, 192, 384, 576, 960),
        (2, 3, 4, 3, 3),
        IMAGE_SIZES,
        "mobilenetv2:MobileNetV2",
    ),
    "shufflenetv2": ((58, 116, 232), (4, 8, 4), IMAGE_SIZES, "shufflenetv2:ShuffleNetV2"),
    "resnext29": ((128, 256, 512), (3, 3, 3), CIFAR_SIZES, "resnext:build_resnext29"),
    "resnext50": ((128, 256, 512, 1024), (3, 4, 6, 3), IMAGE_SIZES, "resnext:build_resnext50"),
}
"""Channels and blocks of each stage, image sizes, and where the family is built."""
_OTHER_RATIOS = {"mobilenetv2": {"base": 16, "B": 16}, "resnext29": {"base": 4, "B": 8}}

for _name, (_channels, _blocks, _sizes, _build) in _SHAPES.items():
    register_backbone(
        Backbone(
            _name,
            tuple(map(StageShape, _channels, _blocks)),
            _sizes,
            f"afi_search.nn.backbones.{_build}",
            MappingProxyType(_OTHER_RATIOS.get(_name, {"base": 4, "B": 16})),
        )
    )
