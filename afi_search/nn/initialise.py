"""The initialisation that all backbones share."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def initialise(model: M) -> M:
    """Draw every 2-d convolution's weights as He et al. 2015 do (normal, fan out).

    Returns the model. Batch norms start as the identity and linear layers as torch has them. Draws
    from the current torch random number generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
