"""What may be searched: backbones, architectures, space files."""

from afi_search.space.architecture import Architecture, ArchitectureError, StageChoice
from afi_search.space.attention import ATTENTIONS, Attention, register_attention
from afi_search.space.backbone import (
    BACKBONES,
    Backbone,
    StageShape,
    get_backbone,
    register_backbone,
)
from afi_search.space.loading import SpaceFileError
from afi_search.space.objective import Objective, register_objective
from afi_search.space.recipe import Recipe
from afi_search.space.schema import SpaceFile
from afi_search.space.space import Space

__all__ = [
    "ATTENTIONS",
    "BACKBONES",
    "Architecture",
    "ArchitectureError",
    "Attention",
    "Backbone",
    "Objective",
    "Recipe",
    "Space",
    "SpaceFile",
    "SpaceFileError",
    "StageChoice",
    "StageShape",
    "get_backbone",
    "register_attention",
    "register_backbone",
    "register_objective",
]
