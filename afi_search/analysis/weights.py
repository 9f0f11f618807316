"""Which earlier features AFI's blocks read: the softmax weights, averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from afi_search.analysis.figure import SMALL, TEXT, bare, png, titled_figure
from afi_search.analysis.networks import BlockIndex
from afi_search.data import ImageSet
from afi_search.data.tensor_source import Normalise
from afi_search.nn import Stage, afi_weights, searched_stages
from afi_search.report import style

LARGEST_CELL, PANELS_WIDTH = 0.5, 7.0  # inches, of a weight and of all weights side by side
READABLE_CELL = 0.32  # inches; smaller cells hold no numbers
COLOUR_MAP = "RdBu_r"
EXPLANATION = (
    "Rows: blocks; columns: their sources X. AFI's weights in %: mean over images and channels (a "
    "row sums to 100) and, below it, standard deviation over the channels. Colour: the mean over "
    "an even share among the block's sources."
)
COARSE = (
    "Rows: blocks; columns: their sources X. Colour: AFI's weights, averaged over images and "
    "channels, over an even share among the block's sources."
)
LEAST_CONTRAST, MOST_CONTRAST = 0.3, 2.0  # doublings


@dataclass(frozen=True)
class SourceWeights:
    """The weights that a block gives to its sources.

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
) -> Mapping[BlockIndex, SourceWeights]:
    """Return the mean weights of every block with AFI; empty for a plain network.

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
    result = {}
    for name, total in sums.items():
        stage, _, index = name.rpartition(".")
        place = BlockIndex(numbers[stage], int(index) + 1)
        weights = total / len(images)
        result[place] = SourceWeights(
            sources=tuple(range(starts[stage], place.block)) or (place.block,),
            means=tuple(weights.mean(dim=1).tolist()),
            spreads=tuple(weights.std(dim=1, correction=0).tolist()),
        )
    return result


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

    stages = searched_stages(model).items()
    hooks = [
        stage.register_forward_pre_hook(asker(name))
        for name, stage in stages
        if stage.afi is not None
    ]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return starts


@dataclass(frozen=True)
class Panel:
    """The weights of a stage; readers x sources, NaN where a block does not read a source.

    Attributes:
        stage: its number.
        blocks: numbers of the readers.
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
        """log2 of the means over an even share (1 / the number of the block's sources)."""
        over_even = self.means * np.isfinite(self.means).sum(axis=1, keepdims=True)
        result: np.ndarray = np.log2(np.maximum(over_even, np.finfo(float).tiny))
        return result


def weights_plot(title: str, facts: str, weights: Mapping[BlockIndex, SourceWeights]) -> bytes:
    """Draw one panel a stage with AFI, readers down and sources across; return a PNG.

    Args:
        title: above everything.
        facts: the first sentence of the caption.
        weights: of each block with AFI; not empty.
    """
    panels = [_panel(weights, stage) for stage in sorted({place.stage for place in weights})]
    columns = [len(panel.sources) for panel in panels]
    cell = min(LARGEST_CELL, PANELS_WIDTH / sum(columns))
    readable = cell >= READABLE_CELL
    width = cell * sum(columns) + 0.45 * len(panels) + 1.4
    height = cell * max(len(panel.blocks) for panel in panels) + 1.5
    caption = f"{facts}. {EXPLANATION if readable else COARSE}"
    figure = titled_figure(title, caption, width, height)
    largest = max(float(np.nanmax(abs(panel.doublings))) for panel in panels)
    contrast = min(max(LEAST_CONTRAST, largest), MOST_CONTRAST)
    row = figure.subplots(1, len(panels), squeeze=False, width_ratios=columns)[0]
    for axes, panel in zip(row, panels, strict=True):
        shown = np.ma.masked_invalid(panel.doublings)
        axes.set_anchor("NW")
        image = axes.imshow(shown, cmap=COLOUR_MAP, vmin=-contrast, vmax=contrast)
        if readable:
            _write(axes, panel, contrast)
        _dress(axes, panel)
    row[0].set_ylabel("block", fontsize=TEXT, color=style.INK, labelpad=2)
    shrink = min(1, 2.5 / height)
    colours = figure.colorbar(
        image, ax=list(row), aspect=25, shrink=shrink, anchor=(0, 1), panchor=False
    )
    times = f"{2**contrast:.2g}"
    colours.set_ticks(
        [-contrast, 0, contrast], labels=[f"1/{times} of even", "even", f"{times} x even"]
    )
    bare(colours.ax, "y")
    return png(figure)


def _panel(weights: Mapping[BlockIndex, SourceWeights], stage: int) -> Panel:
    of_stage = {place.block: of for place, of in weights.items() if place.stage == stage}
    sources = sorted({source for of in of_stage.values() for source in of.sources})
    means = np.full((len(of_stage), len(sources)), np.nan)
    spreads = means.copy()
    for row, of in enumerate(of_stage.values()):
        columns = [sources.index(source) for source in of.sources]
        means[row, columns] = of.means
        spreads[row, columns] = of.spreads
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


def _dress(axes: Axes, panel: Panel) -> None:
    bare(axes, ("x", "y"))
    axes.set_xticks(np.arange(0.5, len(panel.sources)), minor=True)
    axes.set_yticks(np.arange(0.5, len(panel.blocks)), minor=True)
    axes.grid(which="minor", color="white", lw=0.7)
    axes.tick_params(which="minor", length=0)
    columns, rows = _ticks(panel.sources), _ticks(panel.blocks)
    axes.set_xticks(list(columns), [f"$X_{{{number}}}$" for number in columns.values()])
    axes.set_yticks(list(rows), [str(number) for number in rows.values()])
    axes.set_title(f"stage {panel.stage}", fontsize=TEXT, color=style.INK, loc="left", pad=4)


def _ticks(numbers: Sequence[int]) -> dict[int, int]:
    """Return the positions to label and their numbers: all, or about eight of them."""
    step = -(-len(numbers) // 8)
    return {position: numbers[position] for position in range(0, len(numbers), step)}
