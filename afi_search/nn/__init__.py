"""Architectures as torch modules; importing this package registers every backbone."""

from afi_search.nn.attention import AttentionTooNarrow, make_attention
from afi_search.nn.backbones import mobilenetv2, resnet, resnext, shufflenetv2
from afi_search.nn.build import UnsupportedImageSize, build
from afi_search.nn.pretrained import PretrainedError, WarmStart, warm_start
from afi_search.nn.stage import Block, Stage, afi_weights, searched_stages

__all__ = [
    "AttentionTooNarrow",
    "Block",
    "PretrainedError",
    "Stage",
    "UnsupportedImageSize",
    "WarmStart",
    "afi_weights",
    "build",
    "make_attention",
    "mobilenetv2",
    "resnet",
    "resnext",
    "searched_stages",
    "shufflenetv2",
    "warm_start",
]
