"""Grad-CAM (Selvaraju et al. 2017): where a network sees what speaks for a class.

The maps are those of the last searched stage's output, which is the same place in every
architecture of a backbone; captum computes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from afi_search.nn import searched_stages


@dataclass(frozen=True)
class Looks:
    """What a network makes of some images.

    Attributes:
        maps: N x H x W, 0 to 1 each: what speaks for the asked class, over the largest value in
            the image; all 0 where nothing does.
        predicted: N, the class the network takes each image for.
        probability: N, what it gives that class.
    """

    maps: Tensor
    predicted: Tensor
    probability: Tensor


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor) -> Looks:
    """Return the Grad-CAM maps for one class of each image, at the images' resolution.

    Args:
        model: in eval mode, on the device of the images.
        images: N x 3 x H x W, as the model takes them.
        classes: N, int64.
    """
    *_, layer = searched_stages(model).values()
    coarse = LayerGradCam(model, layer).attribute(images, target=classes, relu_attributions=True)
    size = (images.shape[2], images.shape[3])
    maps = LayerAttribution.interpolate(coarse, size, "bilinear")[:, 0].detach()
    peaks = maps.amax(dim=(1, 2), keepdim=True)
    with torch.no_grad():
        probability, predicted = model(images).softmax(dim=1).max(dim=1)
    return Looks(
        (maps / peaks.clamp(min=torch.finfo(maps.dtype).tiny)).cpu(),
        predicted.cpu(),
        probability.cpu(),
    )
