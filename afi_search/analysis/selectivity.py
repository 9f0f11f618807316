"""The class selectivity index: how much of a class a channel tells.

Morcos, Barrett, Rabinowitz and Botvinick 2018, On the importance of single directions for
generalization: for a channel, with its mean activity for each class,

    index = (largest - mean of the others) / (largest + mean of the others),

0 where all classes excite it alike, 1 where only one does. The activity is that of a block's
output, averaged over positions and images; what is below zero (a linear bottleneck's output can
be) counts as none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from afi_search.analysis.blocks import Place, blocks_of
from afi_search.data import ImageSet
from afi_search.data.tensor_source import Normalise


def class_selectivity(means: Tensor) -> Tensor:
    """Return the index of each channel that is active at all.

    Args:
        means: classes x channels, the mean activity, not negative.

    Returns:
        at most as many values as channels, 0 to 1.
    """
    active = means[:, means.amax(dim=0) > 0]
    largest = active.amax(dim=0)
    others = (active.sum(dim=0) - largest) / (len(means) - 1)
    return (largest - others) / (largest + others)


def selectivity_of_blocks(
    model: nn.Module,
    images: ImageSet,
    normalise: Normalise,
    num_classes: int,
    batch_size: int = 250,
) -> Mapping[Place, Tensor]:
    """Return the channels' indices of every block of the searched stages.

    Args:
        model: in eval mode, on the device of the images.
        images: with labels of every class.
        normalise: from uint8 to what the model takes.
        num_classes: labels are below it.
        batch_size: images at a time.
    """
    sums: dict[Place, Tensor] = {}
    labels = torch.empty(0)

    def adder(place: Place) -> Callable[[nn.Module, object, Tensor], None]:
        def add(_block: nn.Module, _inputs: object, output: Tensor) -> None:
            activity = output.detach().relu().mean(dim=(2, 3)).double()
            if place not in sums:
                sums[place] = activity.new_zeros(num_classes, activity.shape[1])
            sums[place].index_add_(0, labels, activity)

        return add

    hooks = [block.register_forward_hook(adder(place)) for place, block in blocks_of(model).items()]
    try:
        with torch.no_grad():
            for start in range(0, len(images), batch_size):
                labels = images.labels[start : start + batch_size]
                model(normalise(images.images[start : start + batch_size]))
    finally:
        for hook in hooks:
            hook.remove()
    counts = torch.bincount(images.labels, minlength=num_classes).double()[:, None]
    seen = counts[:, 0] > 0
    return {place: class_selectivity((sums[place] / counts)[seen]) for place in sums}
