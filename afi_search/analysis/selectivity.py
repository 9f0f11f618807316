"""The class selectivity index: how much of a class a channel tells.

Morcos, Barrett, Rabinowitz and Botvinick 2018, On the importance of single directions for
generalization (arXiv:1803.06959): for a channel, with its mean activity for each class,

    index = (largest - mean of the others) / (largest + mean of the others),

0 where all classes excite it alike, 1 where only one does. The activity is that of a block's
output, averaged over positions and images; what is below zero (a linear bottleneck's output can
be) counts as none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from afi_search.analysis.networks import BlockIndex, blocks_of
from afi_search.data import ImageSet
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.report import style
from afi_search.report.style import NETWORKS, TEXT, png, titled_figure

WIDTH, PANEL, KEY = 8.0, 1.6, 0.2  # inches: of the picture; heights of a stage and a network's name
EXPLANATION = (
    "0: a channel is as active for all classes; 1: for one class alone. Each shape is the "
    "distribution over a block's output channels, the bar its median."
)


def class_selectivity(means: Tensor) -> Tensor:
    """Return the index (0 to 1) of each channel that is active at all, by classes x channels means.

    >>> class_selectivity(torch.tensor([[3.0, 2.0, 0.0], [1.0, 2.0, 5.0]]))
    tensor([0.5000, 0.0000, 1.0000])
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
) -> Mapping[BlockIndex, Tensor]:
    """Return the indices of the channels of every block of a model in eval mode."""
    activities: dict[BlockIndex, Tensor] = {}
    sums: dict[BlockIndex, Tensor] = {}

    def note(place: BlockIndex, _block: nn.Module, _inputs: object, output: Tensor) -> None:
        activities[place] = output.relu().mean(dim=(2, 3)).double()

    with ExitStack() as hooks, torch.no_grad():
        for place, block in blocks_of(model).items():
            hooks.enter_context(block.register_forward_hook(partial(note, place)))
        for batch, labels in normalised_batches(images, normalise, batch_size):
            model(batch)
            for place, activity in activities.items():
                none = activity.new_zeros(num_classes, activity.shape[1])
                sums.setdefault(place, none).index_add_(0, labels, activity)
    counts = torch.bincount(images.labels, minlength=num_classes).double()[:, None]
    seen = counts[:, 0] > 0
    return {place: class_selectivity((sums[place] / counts)[seen]) for place in sums}


def selectivity_plot(
    title: str, networks: Sequence[tuple[str, Mapping[BlockIndex, Tensor]]]
) -> bytes:
    """Draw a panel a stage, the distributions of titled networks side by side; return a PNG."""
    places = list(networks[0][1])
    stages = sorted({place.stage for place in places})
    highest = max(float(of.max()) for _, values in networks for of in values.values() if len(of))
    heights = [(len(networks) + 1) * KEY, len(stages) * PANEL]
    figure = titled_figure(title, EXPLANATION, WIDTH, sum(heights) + 0.7)
    top, body = figure.subfigures(2, height_ratios=heights, squeeze=False)[:, 0]
    for axes, stage in zip(body.subplots(len(stages), squeeze=False)[:, 0], stages, strict=True):
        blocks = [place for place in places if place.stage == stage]
        for index, (_, values) in enumerate(networks):
            _draw(axes, [values[place] for place in blocks], index, len(networks))
        style.dress(axes, grid="y")
        axes.set_xlim(0.4, len(blocks) + 0.6)
        axes.set_ylim(0, min(1.0, 1.08 * highest))
        axes.set_xticks(range(1, len(blocks) + 1))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylabel(f"stage {stage}\nselectivity", fontsize=TEXT, color=style.INK)
    axes.set_xlabel("block", fontsize=TEXT, color=style.INK)
    keys = [
        Patch(facecolor=colour, alpha=0.6, label=name)
        for colour, (name, _) in zip(NETWORKS, networks, strict=False)
    ]
    top.legend(handles=keys, loc="upper left", fontsize=TEXT, frameon=False, borderaxespad=0)
    return png(figure)


def _draw(axes: Axes, samples: Sequence[Tensor], index: int, networks: int) -> None:
    slot = 0.84 / networks
    for position, sample in enumerate(samples, start=1):
        values = sample.cpu().numpy()
        centre = position + (index - (networks - 1) / 2) * slot
        if len(np.unique(values)) > 1:
            shape = axes.violinplot(
                [values], [centre], widths=0.94 * slot, showextrema=False, points=200
            )
            for body in cast(list[PolyCollection], shape["bodies"]):
                body.set(facecolor=NETWORKS[index], edgecolor="none", alpha=0.6)
        if len(values):
            left, right = centre - 0.3 * slot, centre + 0.3 * slot
            axes.hlines(float(np.median(values)), left, right, color=style.INK, lw=1.2)
