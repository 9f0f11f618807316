"""What may be searched: backbones, architectures, space files."""

from afi_search.space.architecture import Architecture as Architecture
from afi_search.space.architecture import ArchitectureError as ArchitectureError
from afi_search.space.architecture import StageChoice as StageChoice
from afi_search.space.attention import ATTENTIONS as ATTENTIONS
from afi_search.space.attention import Attention as Attention
from afi_search.space.attention import register_attention as register_attention
from afi_search.space.backbone import BACKBONES as BACKBONES
from afi_search.space.backbone import Backbone as Backbone
from afi_search.space.backbone import StageShape as StageShape
from afi_search.space.backbone import get_backbone as get_backbone
from afi_search.space.backbone import register_backbone as register_backbone
from afi_search.space.loading import SpaceFileError as SpaceFileError
from afi_search.space.objective import Objective as Objective
from afi_search.space.objective import register_objective as register_objective
from afi_search.space.recipe import Recipe as Recipe
from afi_search.space.schema import SpaceFile as SpaceFile
from afi_search.space.space import Space as Space
