"""Grad-CAM of several networks on the same images, one row a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from afi_search.analysis.figure import LINE, MARGIN, SMALL, TEXT, TITLE, Sheet, bare, room_for
from afi_search.analysis.gradcam import Looks
from afi_search.report import style

CELL, GAP = 1.0, 0.06
HEAT, OPACITY = "inferno", 0.65
EXPLANATION = (
    "Bright: what speaks for the image's own class (Grad-CAM of the last stage's output, each map "
    "on a scale of its own). Below: the first guess, blue where it is right."
)


def gradcam_sheet(
    title: str,
    images: Tensor,
    names: Sequence[str],
    rows: Sequence[tuple[str, Looks, Sequence[str]]],
) -> bytes:
    """Draw the images and under them each network's maps; return a PNG.

    Args:
        title: above everything.
        images: N x H x W x 3, uint8.
        names: what each image's class is called.
        rows: for each network its title, its maps, and what the predicted classes are called.
    """
    columns = len(images)
    heading = 2.6 * LINE
    row_height = LINE + CELL + LINE + GAP
    lines = [room_for(title, TITLE, "bold"), room_for(EXPLANATION, SMALL)]
    lines += [room_for(heading_text) for heading_text, _, _ in rows]
    width = max(2 * MARGIN + columns * (CELL + GAP) - GAP, *lines)
    sheet = Sheet(width, MARGIN + heading + CELL + LINE + len(rows) * (row_height + GAP) + MARGIN)
    sheet.text(MARGIN, MARGIN, title, TITLE, weight="bold", color=style.INK)
    sheet.text(MARGIN, MARGIN + 1.2 * LINE, EXPLANATION, SMALL, color=style.SOFT)
    top = MARGIN + heading
    pictures = images.numpy()
    for column, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        left = MARGIN + column * (CELL + GAP)
        _show(sheet.axes(left, top, CELL, CELL), picture)
        _caption(sheet, left, top, name, style.INK)
    top += CELL + LINE + GAP
    for heading_text, looks, guesses in rows:
        sheet.text(MARGIN, top + 0.02, heading_text, TEXT, color=style.INK)
        top += LINE
        for column, picture in enumerate(pictures):
            left = MARGIN + column * (CELL + GAP)
            axes = sheet.axes(left, top, CELL, CELL)
            _show(axes, picture, looks.maps[column].numpy())
            right = guesses[column] == names[column]
            guess = f"{guesses[column]}, {100 * looks.probability[column]:.0f} %"
            _caption(sheet, left, top, guess, style.FRONT if right else style.PAPER)
        top += CELL + LINE + 2 * GAP
    return sheet.png()


def _show(axes: Axes, picture: np.ndarray, heat: np.ndarray | None = None) -> None:
    bare(axes)
    if heat is None:
        axes.imshow(picture, interpolation="nearest")
        return
    grey = picture.mean(axis=2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=OPACITY, interpolation="bilinear")


def _caption(sheet: Sheet, left: float, top: float, text: str, colour: str) -> None:
    sheet.text(left + CELL / 2, top + CELL + 0.03, text, SMALL, ha="center", color=colour)
