"""What may be searched: backbones, architectures, space files."""

from afi_search.space.architecture import (
    SCORERS,
    WIDTHS,
    Architecture,
    ArchitectureError,
    StageChoice,
    afi_channels,
    hidden_units,
)
from afi_search.space.attention import ATTENTIONS, Attention, register_attention
from afi_search.space.backbone import (
    Backbone,
    StageShape,
    UnknownBackbone,
    UnsupportedImageSize,
    backbone_names,
    get_backbone,
    register_backbone,
)
from afi_search.space.families import CIFAR_SIZES, IMAGE_SIZES
from afi_search.space.loading import SpaceDocument, SpaceFileError
from afi_search.space.recipe import Recipe
from afi_search.space.schema import SpaceFile
from afi_search.space.space import Space

__all__ = [
    "ATTENTIONS",
    "CIFAR_SIZES",
    "IMAGE_SIZES",
    "SCORERS",
    "WIDTHS",
    "Architecture",
    "ArchitectureError",
    "Attention",
    "Backbone",
    "Recipe",
    "Space",
    "SpaceDocument",
    "SpaceFile",
    "SpaceFileError",
    "StageChoice",
    "StageShape",
    "UnknownBackbone",
    "UnsupportedImageSize",
    "afi_channels",
    "backbone_names",
    "get_backbone",
    "hidden_units",
    "register_attention",
    "register_backbone",
]
