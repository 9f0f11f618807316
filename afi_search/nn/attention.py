"""Add-on attention for R, the integrated feature: timm's SE, GE, CBAM and ECA layers.

SE: Hu et al. 2018. GE: Hu et al. 2018, the parameter-free form with global extent (GE-theta-minus);
timm's other forms coincide with SE or cannot be built with timm 1.0. CBAM: Woo et al. 2018.
ECA: Wang et al. 2020. SE and CBAM have timm's reduction ratio of 16.
"""

from __future__ import annotations

from collections.abc import Callable

from timm.layers.cbam import CbamModule
from timm.layers.eca import EcaModule
from timm.layers.gather_excite import GatherExcite
from timm.layers.squeeze_excite import SqueezeExcite
from torch import nn

from afi_search.errors import UserError

_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "se": SqueezeExcite,
    "ge": lambda channels: GatherExcite(channels, use_mlp=False),
    "cbam": CbamModule,
    "eca": EcaModule,
}

# SE never squeezes to less than 8 units, CBAM's channel gate needs as many to be a bottleneck, and
# ECA convolves 3 neighbouring channels.
_LEAST_CHANNELS = {"se": 8, "ge": 1, "cbam": 8, "eca": 3}


class AttentionTooNarrow(UserError):
    """R has too few channels for the attention that was asked for."""


def make_attention(kind: str, channels: int) -> nn.Module:
    """Return the attention layer of that name for `channels` channels, B x C x H x W to the same.

    Raises:
        AttentionTooNarrow: the layer has no meaning for so few channels.
    """
    least = _LEAST_CHANNELS[kind]
    if channels < least:
        fitting = [name for name, needed in _LEAST_CHANNELS.items() if channels >= needed]
        raise AttentionTooNarrow(
            f"attention {kind!r} needs at least {least} channels and is asked to work on "
            f"{channels}; use width 'B', or one of: none, {', '.join(fitting)}"
        )
    return _LAYERS[kind](channels)
