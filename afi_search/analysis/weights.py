"""Which earlier features AFI's blocks read: the softmax weights, averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from afi_search.analysis.blocks import Place
from afi_search.data import ImageSet
from afi_search.data.tensor_source import Normalise
from afi_search.nn import Stage, afi_weights, searched_stages


@dataclass(frozen=True)
class Reading:
    """What a block reads.

    Attributes:
        sources: numbers j of the features X_j, the oldest first.
        means: the weight of each source, averaged over images and channels; they sum to one.
        spreads: the standard deviation of each source's weight over the channels.
    """

    sources: tuple[int, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]


def mean_weights(
    model: nn.Module, images: ImageSet, normalise: Normalise, batch_size: int = 250
) -> Mapping[Place, Reading]:
    """Return what every block with AFI reads; empty for a plain network.

    Args:
        model: in eval mode, on the device of the images.
        images: what to average over.
        normalise: from uint8 to what the model takes.
        batch_size: images at a time.
    """
    sums: dict[str, Tensor] = {}
    for start in range(0, len(images), batch_size):
        batch = normalise(images.images[start : start + batch_size])
        for name, weights in afi_weights(model, batch).items():
            total = weights.double().sum(dim=0)
            sums[name] = sums[name] + total if name in sums else total
    starts = first_sources(model, normalise(images.images[:1]))
    numbers = {name: number for number, name in enumerate(searched_stages(model), start=1)}
    readings = {}
    for name, total in sums.items():
        stage, _, index = name.rpartition(".")
        place = Place(numbers[stage], int(index) + 1)
        readings[place] = _reading(total / len(images), starts[stage], place.block)
    return readings


def first_sources(model: nn.Module, image: Tensor) -> Mapping[str, int]:
    """Return the number of the first source of each stage with AFI, by the stage's name.

    Args:
        model: in eval mode.
        image: any image that the model takes, 1 x 3 x H x W.
    """
    starts: dict[str, int] = {}

    def asker(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def ask(stage: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(stage, Stage)
            starts[name] = stage.first_source(inputs[0])

        return ask

    integrating = {
        name: stage for name, stage in searched_stages(model).items() if stage.afi is not None
    }
    hooks = [stage.register_forward_pre_hook(asker(name)) for name, stage in integrating.items()]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return starts


def _reading(weights: Tensor, start: int, block: int) -> Reading:
    """Return what a block reads, given its mean weights, sources x channels.

    A block before which there is no source reads its own feature.
    """
    return Reading(
        sources=tuple(range(start, block)) or (block,),
        means=tuple(weights.mean(dim=1).tolist()),
        spreads=tuple(weights.std(dim=1, correction=0).tolist()),
    )
