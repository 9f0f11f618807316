from __future__ import annotations

import io

import matplotlib.image
import matplotlib.pyplot
import numpy as np
from pandas import DataFrame

from afi_search.report.front_plot import front_figure
from afi_search.report.front_png import WIDTH_PIXELS, front_png
from afi_search.report.view import StudyView
from tests.report.synthetic_records import empty, record, searched, study_info

INFO = study_info()
FRONT_BLUE = np.array([0x00, 0x72, 0xB2]) / 255
PAPER_ORANGE = np.array([0xD5, 0x5E, 0x00]) / 255


def picture(records: DataFrame) -> np.ndarray:
    """Red, green and blue of every pixel, 0 to 1."""
    view = StudyView(records, INFO)
    return matplotlib.image.imread(io.BytesIO(front_png(view, front_figure(view))))[..., :3]


def pixels_of(colour: np.ndarray, pixels: np.ndarray) -> int:
    return int((np.abs(pixels - colour).max(axis=-1) < 0.01).sum())


def test_the_picture_shows_the_front_and_the_papers_points() -> None:
    pixels = picture(searched(20, info=INFO))
    assert pixels.shape[1] == WIDTH_PIXELS
    assert 900 < pixels.shape[0] < 2400
    assert pixels_of(FRONT_BLUE, pixels) > 500
    assert pixels_of(PAPER_ORANGE, pixels) > 50


def test_without_a_front_the_picture_is_drawn_without_its_colour() -> None:
    pixels = picture(empty())
    assert pixels.shape[1] == WIDTH_PIXELS
    assert pixels_of(FRONT_BLUE, pixels) == 0
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


def test_long_names_below_the_picture_are_not_cut() -> None:
    name = f"resnet32({', '.join(['base-r16-cbam-shared'] * 5)})"
    pixels = picture(DataFrame([record(0, 0.7, 7e7, architecture=name)]))
    below = pixels[-90:]
    assert (below < 0.5).any()
    assert (below[:, -8:] > 0.99).all()


def test_drawing_leaves_no_figure_behind() -> None:
    picture(empty())
    assert matplotlib.pyplot.get_fignums() == []
