"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): where the evidence for a class is.

The maps are those of the last searched stage's output, which is the same layer in every
architecture of a backbone; captum computes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from torch import Tensor, nn

from afi_search.errors import UserError
from afi_search.nn import searched_stages
from afi_search.report import style
from afi_search.report.style import SMALL, TEXT, bare, png, titled_figure

CELL, LINE = 1.06, 0.2  # inches: an image's width, and the height of a line of text
LEAST_COLUMNS = 5
HEAT, OPACITY = "inferno", 0.65
EXPLANATION = (
    "Bright: evidence for the image's own class (Grad-CAM of the last stage's output, each map "
    "on a scale of its own). Below: the first guess, blue where it is right."
)


@dataclass(frozen=True)
class GradCamResult:
    """Grad-CAM of a network for N images.

    `maps`, N x H x W, are the evidence for the class asked about, divided by the largest value in
    the image; all 0 where there is none. `predicted`, int64, is the most probable class.
    """

    maps: Tensor
    predicted: Tensor
    probability: Tensor


def grad_cam(model: nn.Module, images: Tensor, classes: Tensor) -> GradCamResult:
    """Return the Grad-CAM maps for one class of each image, at the images' resolution.

    Of a model in eval mode, normalised N x 3 x H x W images on its device, and N classes, int64.
    """
    try:
        from captum.attr import LayerAttribution, LayerGradCam
    except ImportError:
        raise UserError(
            "Grad-CAM needs captum: pip install 'afi-search[analysis]' installs it"
        ) from None
    *_, layer = searched_stages(model).values()
    coarse = LayerGradCam(model, layer).attribute(images, target=classes, relu_attributions=True)
    size = (images.shape[2], images.shape[3])
    maps = LayerAttribution.interpolate(coarse, size, "bilinear")[:, 0].detach()
    peaks = maps.amax(dim=(1, 2), keepdim=True)
    with torch.no_grad():
        probability, predicted = model(images).softmax(dim=1).max(dim=1)
    return GradCamResult(
        (maps / peaks.clamp(min=torch.finfo(maps.dtype).tiny)).cpu(),
        predicted.cpu(),
        probability.cpu(),
    )


def gradcam_sheet(
    title: str,
    images: Tensor,
    names: Sequence[str],
    rows: Sequence[tuple[str, GradCamResult, Sequence[str]]],
) -> bytes:
    """Draw N x H x W x 3 uint8 images of named classes, and under them each network's maps; as PNG.

    A row has a network's title, its maps, and the names of the classes that it predicts.
    """
    columns = len(images)
    heights = [CELL + LINE, *[CELL + 2 * LINE] * len(rows)]
    height = sum(heights) + 3 * LINE
    figure = titled_figure(title, EXPLANATION, max(columns, LEAST_COLUMNS) * CELL, height)
    first, *others = figure.subfigures(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    pictures = images.numpy()
    for axes, picture, name in zip(_cells(first, columns), pictures, names, strict=True):
        _show(axes, picture)
        axes.set_xlabel(name, fontsize=SMALL, color=style.INK, labelpad=2)
    for part, (heading, result, guesses) in zip(others, rows, strict=True):
        part.suptitle(heading, x=0.005, ha="left", fontsize=TEXT, color=style.INK)
        for index, axes in enumerate(_cells(part, columns)):
            _show(axes, pictures[index], result.maps[index].numpy())
            guess = f"{guesses[index]}, {100 * result.probability[index]:.0f} %"
            colour = style.FRONT if guesses[index] == names[index] else style.PAPER
            axes.set_xlabel(guess, fontsize=SMALL, color=colour, labelpad=2)
    return png(figure)


def _cells(part: SubFigure, columns: int) -> Iterable[Axes]:
    """Return one axes an image, of the same width however few there are."""
    row = part.subplots(1, max(columns, LEAST_COLUMNS), squeeze=False)[0]
    for axes in row:
        bare(axes)
        axes.set_anchor("N")
    for spare in row[columns:]:
        spare.set_visible(False)
    return list(row[:columns])


def _show(axes: Axes, picture: np.ndarray, heat: np.ndarray | None = None) -> None:
    if heat is None:
        axes.imshow(picture, interpolation="nearest")
        return
    axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=OPACITY, interpolation="bilinear")
