"""Which features each block reads, as a heat map of block against source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.image import AxesImage

from afi_search.analysis.blocks import Place
from afi_search.analysis.figure import LINE, SMALL, TEXT, TITLE, Sheet, bare
from afi_search.analysis.weights import Reading
from afi_search.report import style

LARGEST_CELL, PANELS_WIDTH = 0.5, 8.0
LEFT, GAP, MARGIN = 0.75, 0.55, 0.15
READABLE_CELL = 0.3
COLOUR_MAP = "RdBu_r"
EXPLANATION = (
    "Weights in %, averaged over images and channels; a row sums to 100. Colour: the weight over an "
    "even share among the block's sources."
)


def weights_plot(title: str, readings: Mapping[Place, Reading]) -> bytes:
    """Draw one panel a stage with AFI, readers down and sources across; return a PNG.

    Args:
        title: above everything.
        readings: what each block with AFI reads; not empty.
    """
    stages = sorted({place.stage for place in readings})
    panels = [_panel(readings, stage) for stage in stages]
    cells = sum(panel.shape[1] for panel in panels)
    gaps = GAP * (len(panels) - 1)
    cell = min(LARGEST_CELL, (PANELS_WIDTH - gaps) / cells)
    height = cell * max(len(panel) for panel in panels)
    top = MARGIN + 3.2 * LINE
    width = max(LEFT + cells * cell + gaps + 1.1, 6.4)
    sheet = Sheet(width, top + height + 0.62)
    sheet.text(MARGIN, MARGIN, title, TITLE, weight="bold", color=style.INK)
    sheet.text(MARGIN, MARGIN + 1.2 * LINE, EXPLANATION, SMALL, color=style.SOFT)
    most = max(2.0, *(np.nanmax(_over_even(panel)) for panel in panels))
    norm = TwoSlopeNorm(vmin=0.0, vcenter=1.0, vmax=most)
    left = LEFT
    for stage, panel in zip(stages, panels, strict=True):
        rows, columns = panel.shape
        axes = sheet.axes(left, top, columns * cell, rows * cell)
        image = _draw(axes, panel, norm, cell)
        _dress(axes, stage, readings, labelled=left == LEFT)
        left += columns * cell + GAP
    bar = sheet.axes(left - GAP + 0.25, top, 0.1, height)
    colours = sheet.figure.colorbar(image, cax=bar)
    colours.set_ticks([0, 1, *([most] if most > 1.3 else [])])
    colours.ax.set_yticklabels(["0", "even", f"{most:.1f} x"][: len(colours.get_ticks())])
    colours.outline.set_visible(False)
    colours.ax.tick_params(labelsize=SMALL, length=0, labelcolor=style.INK)
    return sheet.png()


def _panel(readings: Mapping[Place, Reading], stage: int) -> np.ndarray:
    """Return a stage's weights, readers x sources, NaN where a block does not read a source."""
    of_stage = {place.block: reading for place, reading in readings.items() if place.stage == stage}
    columns = _columns(of_stage)
    panel = np.full((len(of_stage), len(columns)), np.nan)
    for row, reading in enumerate(of_stage.values()):
        for source, mean in zip(reading.sources, reading.means, strict=True):
            panel[row, columns.index(source)] = mean
    return panel


def _columns(of_stage: Mapping[int, Reading]) -> list[int]:
    return sorted({source for reading in of_stage.values() for source in reading.sources})


def _over_even(panel: np.ndarray) -> np.ndarray:
    shares: np.ndarray = panel * np.isfinite(panel).sum(axis=1, keepdims=True)
    return shares


def _draw(axes: Axes, panel: np.ndarray, norm: TwoSlopeNorm, cell: float) -> AxesImage:
    over = _over_even(panel)
    image = axes.imshow(np.ma.masked_invalid(over), cmap=COLOUR_MAP, norm=norm, aspect="auto")
    if cell >= READABLE_CELL:
        for (row, column), weight in np.ndenumerate(panel):
            if np.isfinite(weight):
                dark = abs(norm(over[row, column]) - 0.5) > 0.33
                axes.text(
                    column,
                    row,
                    f"{100 * weight:.0f}",
                    ha="center",
                    va="center",
                    fontsize=SMALL,
                    color="white" if dark else style.INK,
                )
    return image


def _dress(
    axes: Axes, stage: int, readings: Mapping[Place, Reading], *, labelled: bool
) -> None:
    of_stage = {place.block: reading for place, reading in readings.items() if place.stage == stage}
    bare(axes, ("x", "y"))
    columns, rows = _columns(of_stage), list(of_stage)
    _ticks(axes, "x", columns, "X")
    _ticks(axes, "y", rows, "")
    axes.set_xlabel(f"source, stage {stage}", fontsize=TEXT, color=style.INK, labelpad=2)
    if labelled:
        axes.set_ylabel("reading block", fontsize=TEXT, color=style.INK, labelpad=2)


def _ticks(axes: Axes, axis: str, numbers: Sequence[int], symbol: str) -> None:
    """Label every number, or about ten of them."""
    step = -(-len(numbers) // 10)
    at = range(0, len(numbers), step)
    labels = [f"${symbol}_{{{numbers[i]}}}$" if symbol else str(numbers[i]) for i in at]
    {"x": axes.set_xticks, "y": axes.set_yticks}[axis](list(at), labels)
