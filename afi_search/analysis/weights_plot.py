"""Which features each block reads, as a heat map of block against source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from afi_search.analysis.blocks import Place
from afi_search.analysis.figure import LINE, MARGIN, SMALL, TEXT, TITLE, Sheet, bare, room_for
from afi_search.analysis.weights import Reading
from afi_search.report import style

LARGEST_CELL, PANELS_WIDTH, LEAST_WIDTH = 0.5, 8.0, 5.4
LEFT, GAP = 0.75, 0.55
READABLE_CELL = 0.32
COLOUR_MAP = "RdBu_r"
EXPLANATION = (
    "AFI's weights in %: mean over images and channels (a row sums to 100) and, below it, standard",
    "deviation over the channels. Colour: the mean over an even share among the block's sources.",
)
COARSE = "Colour: AFI's weights, averaged over images and channels, over an even share."
LEAST_CONTRAST, MOST_CONTRAST = 0.3, 2.0


@dataclass(frozen=True)
class Panel:
    """The weights of a stage; readers x sources, NaN where a block does not read a source.

    Attributes:
        stage: its number.
        blocks: the readers.
        sources: numbers of the features.
        means, spreads: over images and channels, and over channels.
    """

    stage: int
    blocks: Sequence[int]
    sources: Sequence[int]
    means: np.ndarray
    spreads: np.ndarray

    @property
    def doublings(self) -> np.ndarray:
        """How often 1 / the number of the block's sources must be doubled to get the means."""
        over_even = self.means * np.isfinite(self.means).sum(axis=1, keepdims=True)
        result: np.ndarray = np.log2(np.maximum(over_even, np.finfo(float).tiny))
        return result


def weights_plot(title: str, facts: str, readings: Mapping[Place, Reading]) -> bytes:
    """Draw one panel a stage with AFI, readers down and sources across; return a PNG.

    Args:
        title: above everything.
        facts: a line under it.
        readings: what each block with AFI reads; not empty.
    """
    panels = [_panel(readings, stage) for stage in sorted({place.stage for place in readings})]
    columns = sum(len(panel.sources) for panel in panels)
    gaps = GAP * (len(panels) - 1)
    cell = min(LARGEST_CELL, (PANELS_WIDTH - gaps) / columns)
    readable = cell >= READABLE_CELL
    height = cell * max(len(panel.blocks) for panel in panels)
    lines = (facts, *(EXPLANATION if readable else (COARSE,)))
    top = MARGIN + (2.2 + 0.9 * len(lines)) * LINE
    width = max(LEFT + columns * cell + gaps + 1.4, LEAST_WIDTH, room_for(title, TITLE, "bold"))
    sheet = Sheet(width, top + height + 0.55)
    sheet.text(MARGIN, MARGIN, title, TITLE, weight="bold", color=style.INK)
    for row, line in enumerate(lines):
        sheet.text(MARGIN, MARGIN + (1.3 + 0.9 * row) * LINE, line, SMALL, color=style.SOFT)
    largest = max(float(np.nanmax(abs(panel.doublings))) for panel in panels)
    contrast = min(max(LEAST_CONTRAST, largest), MOST_CONTRAST)
    left = LEFT
    for panel in panels:
        across, down = len(panel.sources) * cell, len(panel.blocks) * cell
        axes = sheet.axes(left, top, across, down)
        shown = np.ma.masked_invalid(panel.doublings)
        image = axes.imshow(shown, cmap=COLOUR_MAP, vmin=-contrast, vmax=contrast, aspect="auto")
        if readable:
            _write(axes, panel, contrast)
        _dress(axes, panel, labelled=panel is panels[0])
        left += across + GAP
    _scale(sheet, image, contrast, left - GAP + 0.25, top, min(height, 2.5))
    return sheet.png()


def _panel(readings: Mapping[Place, Reading], stage: int) -> Panel:
    of_stage = {place.block: reading for place, reading in readings.items() if place.stage == stage}
    sources = sorted({source for reading in of_stage.values() for source in reading.sources})
    means = np.full((len(of_stage), len(sources)), np.nan)
    spreads = means.copy()
    for row, reading in enumerate(of_stage.values()):
        columns = [sources.index(source) for source in reading.sources]
        means[row, columns] = reading.means
        spreads[row, columns] = reading.spreads
    return Panel(stage, list(of_stage), sources, means, spreads)


def _write(axes: Axes, panel: Panel, contrast: float) -> None:
    for (row, column), doublings in np.ndenumerate(panel.doublings):
        if np.isfinite(doublings):
            dark = abs(doublings) > 0.66 * contrast
            axes.text(
                column,
                row,
                f"{100 * panel.means[row, column]:.0f}\n"
                f"\N{PLUS-MINUS SIGN}{100 * panel.spreads[row, column]:.1f}",
                ha="center",
                va="center",
                fontsize=SMALL - 0.5,
                linespacing=1.1,
                color="white" if dark else style.INK,
            )


def _scale(
    sheet: Sheet, image: AxesImage, contrast: float, left: float, top: float, height: float
) -> None:
    colours = sheet.figure.colorbar(image, cax=sheet.axes(left, top, 0.1, height))
    times = f"{2**contrast:.2g}"
    colours.set_ticks(
        [-contrast, 0, contrast], labels=[f"1/{times} of even", "even", f"{times} x even"]
    )
    colours.ax.tick_params(labelsize=SMALL, length=0, labelcolor=style.INK)
    colours.ax.spines[:].set_visible(False)


def _dress(axes: Axes, panel: Panel, *, labelled: bool) -> None:
    bare(axes, ("x", "y"))
    axes.set_xticks(np.arange(0.5, len(panel.sources)), minor=True)
    axes.set_yticks(np.arange(0.5, len(panel.blocks)), minor=True)
    axes.grid(which="minor", color="white", lw=0.7)
    axes.tick_params(which="minor", length=0)
    columns, rows = _ticks(panel.sources), _ticks(panel.blocks)
    axes.set_xticks(list(columns), [f"$X_{{{number}}}$" for number in columns.values()])
    axes.set_yticks(list(rows), [str(number) for number in rows.values()])
    axes.set_xlabel(f"source, stage {panel.stage}", fontsize=TEXT, color=style.INK, labelpad=2)
    if labelled:
        axes.set_ylabel("block", fontsize=TEXT, color=style.INK, labelpad=2)


def _ticks(numbers: Sequence[int]) -> dict[int, int]:
    """Return the places to label and their numbers: all, or about eight of them."""
    step = -(-len(numbers) // 8)
    return {place: numbers[place] for place in range(0, len(numbers), step)}
