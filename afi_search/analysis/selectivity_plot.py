"""Class selectivity of every block of several networks, as distributions over the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from afi_search.analysis.blocks import Place
from afi_search.analysis.figure import COLOURS, LINE, MARGIN, SMALL, TEXT, TITLE, Sheet, room_for
from afi_search.report import style

WIDTH, PANEL, GAP = 8.0, 1.35, 0.3
LEFT, KEY = 0.75, 0.4
EXPLANATION = (
    "0: a channel is as active for all classes; 1: for one class alone. Each shape is the "
    "distribution over a block's output channels, the bar its median."
)


def selectivity_plot(title: str, networks: Sequence[tuple[str, Mapping[Place, Tensor]]]) -> bytes:
    """Draw one panel a stage, with the networks' distributions side by side; return a PNG.

    Args:
        title: above everything.
        networks: for each its title and the indices of its channels by block; all have the same
            blocks.
    """
    places = list(networks[0][1])
    stages = sorted({place.stage for place in places})
    top = MARGIN + (2.6 + 1.2 * len(networks)) * LINE + 0.1
    width = max(WIDTH, *(room_for(name) + KEY for name, _ in networks))
    sheet = Sheet(width, top + len(stages) * (PANEL + GAP) + 0.15)
    highest = max(float(of.max()) for _, values in networks for of in values.values() if len(of))
    sheet.text(MARGIN, MARGIN, title, TITLE, weight="bold", color=style.INK)
    sheet.text(MARGIN, MARGIN + 1.2 * LINE, EXPLANATION, SMALL, color=style.SOFT)
    for row, (name, _) in enumerate(networks):
        patch = Patch(facecolor=COLOURS[row], alpha=0.6, label=name)
        sheet.legend(MARGIN, MARGIN + (2.6 + 1.2 * row) * LINE, [patch])
    for stage in stages:
        axes = sheet.axes(LEFT, top, width - LEFT - MARGIN, PANEL)
        blocks = [place for place in places if place.stage == stage]
        for index, (_, values) in enumerate(networks):
            _draw(axes, [values[place] for place in blocks], index, len(networks))
        _dress(axes, stage, len(blocks), min(1.0, 1.08 * highest))
        if stage == stages[-1]:
            axes.set_xlabel("block", fontsize=TEXT, color=style.INK, labelpad=1)
        top += PANEL + GAP
    return sheet.png()


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
                body.set(facecolor=COLOURS[index], edgecolor="none", alpha=0.6)
        if len(values):
            middle = float(np.median(values))
            axes.plot(
                [centre - 0.3 * slot, centre + 0.3 * slot],
                [middle, middle],
                color=style.INK,
                lw=1.2,
                solid_capstyle="butt",
            )


def _dress(axes: Axes, stage: int, blocks: int, highest: float) -> None:
    axes.set_xlim(0.4, blocks + 0.6)
    axes.set_ylim(0, highest)
    axes.set_xticks(range(1, blocks + 1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel(f"stage {stage}\nselectivity", fontsize=TEXT, color=style.INK)
    axes.grid(axis="y", color=style.GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL, color=style.FAINT, labelcolor=style.INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(style.FAINT)
