"""Architectures as torch modules."""

from afi_search.nn.build import build as build
from afi_search.nn.pretrained import load_pretrained as load_pretrained
from afi_search.nn.stage import Block as Block
from afi_search.nn.stage import Stage as Stage
from afi_search.nn.stage import afi_weights as afi_weights
from afi_search.nn.stage import searched_stages as searched_stages
from afi_search.nn.supernet import Supernet as Supernet
from afi_search.nn.supernet import SupernetError as SupernetError
