"""The backbones that come with the package: their shapes, and where each is built.

Known without torch, so that a space is read, counted and shown without it; the module that builds
a backbone is imported when the first one is built.
"""

from __future__ import annotations

from types import MappingProxyType

from afi_search.space.backbone import Backbone, StageShape, register_backbone

CIFAR_SIZES = (16, 24, 32)
IMAGE_SIZES = (*CIFAR_SIZES, 64, 96, 128, 160, 192, 224, 256, 288)

_BUILDERS = "afi_search.nn.backbones"
_IMAGENET_RESNETS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _stages(channels: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[StageShape, ...]:
    return tuple(StageShape(*shape) for shape in zip(channels, blocks, strict=True))


for _depth in (20, 32, 44, 56, 110):
    register_backbone(
        Backbone(
            name=f"resnet{_depth}",
            stages=_stages((16, 32, 64), 3 * ((_depth - 2) // 6,)),
            image_sizes=CIFAR_SIZES,
            build=f"{_BUILDERS}.resnet:build_cifar_resnet",
        )
    )
for _prefix, _builder in (("", "build_imagenet_resnet"), ("se", "build_seresnet")):
    for _depth, _blocks in _IMAGENET_RESNETS.items():
        register_backbone(
            Backbone(
                name=f"{_prefix}resnet{_depth}",
                stages=_stages((64, 128, 256, 512), _blocks),
                image_sizes=IMAGE_SIZES,
                build=f"{_BUILDERS}.resnet:{_builder}",
            )
        )
register_backbone(
    Backbone(
        name="mobilenetv2",
        stages=_stages((144, 192, 384, 576, 960), (2, 3, 4, 3, 3)),
        image_sizes=IMAGE_SIZES,
        build=f"{_BUILDERS}.mobilenetv2:build_mobilenetv2",
        ratios=MappingProxyType({"base": 16, "B": 16}),
    )
)
register_backbone(
    Backbone(
        name="shufflenetv2",
        stages=_stages((58, 116, 232), (4, 8, 4)),
        image_sizes=IMAGE_SIZES,
        build=f"{_BUILDERS}.shufflenetv2:build_shufflenetv2",
    )
)
register_backbone(
    Backbone(
        name="resnext29",
        stages=_stages((128, 256, 512), (3, 3, 3)),
        image_sizes=CIFAR_SIZES,
        build=f"{_BUILDERS}.resnext:build_resnext29",
        ratios=MappingProxyType({"base": 4, "B": 8}),
    )
)
register_backbone(
    Backbone(
        name="resnext50",
        stages=_stages((128, 256, 512, 1024), (3, 4, 6, 3)),
        image_sizes=IMAGE_SIZES,
        build=f"{_BUILDERS}.resnext:build_resnext50",
    )
)
