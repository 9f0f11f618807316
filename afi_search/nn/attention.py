"""Add-on attention for R, the integrated feature: timm's SE, GE, CBAM and ECA layers, or a user's.

SE: Hu et al. 2018. GE: Hu et al. 2018, the parameter-free form with global extent (GE-theta-minus);
timm's other forms coincide with SE or cannot be built with timm 1.0. CBAM: Woo et al. 2018.
ECA: Wang et al. 2020. SE and CBAM have timm's reduction ratio of 16.
"""

from __future__ import annotations

from torch import nn

from afi_search.errors import UserError
from afi_search.space.attention import ATTENTIONS


class AttentionTooNarrow(UserError):
    """R has too few channels for the attention that was asked for."""


def make_attention(kind: str, channels: int) -> nn.Module:
    """Return the attention layer of that name for `channels` channels, B x C x H x W to the same.

    Raises:
        AttentionTooNarrow: the layer has no meaning for so few channels.
    """
    attention = ATTENTIONS.get(kind)
    if channels < attention.least_channels:
        every = map(ATTENTIONS.get, ATTENTIONS.names)
        fitting = [other.name for other in every if channels >= other.least_channels]
        raise AttentionTooNarrow(
            f"attention {kind!r} needs at least {attention.least_channels} channels and is asked "
            f"to work on {channels}; use width 'B', or one of: none, {', '.join(fitting)}"
        )
    layer: nn.Module = attention.layer(channels)
    return layer


def gather_excite(channels: int) -> nn.Module:
    """Return GE without parameters."""
    from timm.layers.gather_excite import GatherExcite

    layer: nn.Module = GatherExcite(channels, use_mlp=False)
    return layer
