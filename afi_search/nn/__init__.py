"""Architectures as torch modules."""

from afi_search.nn.build import build
from afi_search.nn.pretrained import PretrainedError, WarmStart, warm_start
from afi_search.nn.stage import Block, Stage, afi_weights, searched_stages
from afi_search.nn.supernet import Supernet, SupernetError

__all__ = [
    "Block",
    "PretrainedError",
    "Stage",
    "Supernet",
    "SupernetError",
    "WarmStart",
    "afi_weights",
    "build",
    "searched_stages",
    "warm_start",
]
