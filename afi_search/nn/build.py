"""From an architecture to a torch module."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from afi_search.nn.pretrained import load_pretrained
from afi_search.space import Architecture, get_backbone

logger = logging.getLogger(__name__)


def build(
    architecture: Architecture | str,
    *,
    num_classes: int,
    image_size: int,
    pretrained: str | Path | None = None,
) -> nn.Module:
    """Return the architecture as a module: B x 3 x image_size x image_size to B x num_classes.

    Its weights are drawn from the current torch random number generator.

    Args:
        architecture: the backbone and what is chosen for its stages, or its text.
        num_classes: the classifier's outputs.
        image_size: height and width of the images; up to 32 gives the CIFAR stem.
        pretrained: a file with torchvision's state dict of the plain backbone. Every tensor of the
            same name and shape is taken from it; what was and was not taken is logged. To get
            that list as a value, call `afi_search.nn.load_pretrained` on a built model instead.

    Raises:
        ArchitectureError, UnknownName: the text is of no architecture.
        UserError: the backbone is not made for that image size, or a stage has too few channels
            for the attention chosen there.
        PretrainedError: the file holds no weights for the backbone.

    >>> model = build("resnet32(B-r16)", num_classes=100, image_size=32)
    >>> sum(parameter.numel() for parameter in model.parameters())
    668980
    """
    architecture = Architecture.of(architecture)
    backbone = get_backbone(architecture.backbone)
    backbone.require_size(image_size)
    sizes = {"num_classes": num_classes, "image_size": image_size}
    model: nn.Module = backbone.builder(architecture, **sizes)
    if pretrained is not None:
        logger.info("%s from %s: %s", architecture, pretrained, load_pretrained(model, pretrained))
    return model
