"""Which earlier features AFI's blocks read: the softmax weights, averaged."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from pandas import DataFrame, Index
from torch import Tensor, nn

from afi_search.data import ImageSet
from afi_search.data.tensor_source import Normalise, normalised_batches
from afi_search.nn import Stage, afi_weights, searched_stages
from afi_search.nn.stage import transition_source
from afi_search.report import style
from afi_search.report.style import SMALL, TEXT, bare, png, titled_figure

COLUMNS = ("stage", "block", "source", "weight", "std_over_channels")
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


def mean_weights(
    model: nn.Module, images: ImageSet, normalise: Normalise, batch_size: int = 250
) -> DataFrame:
    """Return the mean weight that every block with AFI of a model in eval mode gives its sources.

    A row a block and source X_j, with the columns COLUMNS: numbers from 1; the mean over images and
    channels, which sums to 1 over a block's sources; the standard deviation over the channels.
    """
    sums: dict[str, Any] = {}
    for batch, _ in normalised_batches(images, normalise, batch_size):
        for name, weights in afi_weights(model, batch).items():
            sums[name] = sums.get(name, 0) + weights.double().sum(dim=0)
    starts = first_sources(model, normalise(images.images[:1]))
    numbers = {name: number for number, name in enumerate(searched_stages(model), start=1)}
    rows = []
    for name, total in sums.items():
        stage, _, index = name.rpartition(".")
        block, weights = int(index) + 1, total / len(images)
        sources = range(starts[stage], block) or (block,)
        means, spreads = weights.mean(dim=1), weights.std(dim=1, correction=0)
        for source, mean, spread in zip(sources, means.tolist(), spreads.tolist(), strict=True):
            rows.append((numbers[stage], block, source, mean, spread))
    return DataFrame(rows, columns=list(COLUMNS))


def first_sources(model: nn.Module, image: Tensor) -> dict[str, int]:
    """Return the number of each AFI stage's first source, by the stage's name, for any image.

    That is 1, or 2 where the transition block offers none.
    """
    names = {stage: name for name, stage in searched_stages(model).items() if stage.afi is not None}
    starts: dict[str, int] = {}

    def ask(stage: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(stage, Stage) and stage.afi is not None
        transition = next(iter(stage))
        feature = transition.activate(transition.first(inputs[0]))
        second, channels = transition.second(feature), stage.afi.channels
        source = transition_source(transition, feature, second, channels)
        starts[names[stage]] = 2 if source is None else 1

    with ExitStack() as hooks, torch.no_grad():
        for stage in names:
            hooks.enter_context(stage.register_forward_pre_hook(ask))
        model(image)
    return starts


def weights_plot(title: str, facts: str, weights: DataFrame) -> bytes:
    """Draw one panel a stage with AFI, readers down and sources across; return a PNG."""
    panels = {
        str(stage): [
            of_stage.pivot(index="block", columns="source", values=of) for of in COLUMNS[3:]
        ]
        for stage, of_stage in weights.groupby("stage")
    }
    columns = [len(means.columns) for means, _ in panels.values()]
    cell = min(LARGEST_CELL, PANELS_WIDTH / sum(columns))
    readable = cell >= READABLE_CELL
    width = cell * sum(columns) + 0.45 * len(panels) + 1.4
    height = cell * max(len(means) for means, _ in panels.values()) + 1.5
    caption = f"{facts}. {EXPLANATION if readable else COARSE}"
    figure = titled_figure(title, caption, width, height)
    largest = max(float(np.nanmax(abs(doublings(means)))) for means, _ in panels.values())
    contrast = min(max(LEAST_CONTRAST, largest), MOST_CONTRAST)
    row = figure.subplots(1, len(panels), squeeze=False, width_ratios=columns)[0]
    for axes, (stage, (means, spreads)) in zip(row, panels.items(), strict=True):
        shown = np.ma.masked_invalid(doublings(means))
        axes.set_anchor("NW")
        image = axes.imshow(shown, cmap=COLOUR_MAP, vmin=-contrast, vmax=contrast)
        if readable:
            _write(axes, means, spreads, contrast)
        _set_up(axes, means)
        axes.set_title("stage " + stage, fontsize=TEXT, color=style.INK, loc="left", pad=4)
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


def doublings(means: DataFrame) -> np.ndarray:
    """Return log2 of blocks x sources mean weights over an even share; NaN where none is read."""
    over_even = means.mul(means.notna().sum(axis=1), axis=0).to_numpy()
    result: np.ndarray = np.log2(np.maximum(over_even, np.finfo(float).tiny))
    return result


def _write(axes: Axes, means: DataFrame, spreads: DataFrame, contrast: float) -> None:
    for (row, column), doubled in np.ndenumerate(doublings(means)):
        if np.isfinite(doubled):
            mean, spread = (100 * of.to_numpy()[row, column] for of in (means, spreads))
            axes.text(
                column,
                row,
                f"{mean:.0f}\n\N{PLUS-MINUS SIGN}{spread:.1f}",
                ha="center",
                va="center",
                fontsize=SMALL - 0.5,
                linespacing=1.1,
                color="white" if abs(doubled) > 0.66 * contrast else style.INK,
            )


def _set_up(axes: Axes, means: DataFrame) -> None:
    bare(axes, "xy")
    axes.set_xticks(np.arange(0.5, len(means.columns)), minor=True)
    axes.set_yticks(np.arange(0.5, len(means)), minor=True)
    axes.grid(which="minor", color="white", lw=0.7)
    axes.tick_params(which="minor", length=0)
    columns, rows = _ticks(means.columns), _ticks(means.index)
    axes.set_xticks(list(columns), [f"$X_{{{number}}}$" for number in columns.values()])
    axes.set_yticks(list(rows), [str(number) for number in rows.values()])


def _ticks(numbers: Index) -> dict[int, int]:
    """Return the positions to label and their numbers: all, or about eight of them."""
    step = -(-len(numbers) // 8)
    return {position: numbers[position] for position in range(0, len(numbers), step)}
