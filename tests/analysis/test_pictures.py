"""Whatever is drawn, every word of it lies within the picture and on no other."""

from __future__ import annotations

import io
from itertools import combinations

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from pandas import DataFrame
from PIL import Image

from afi_search.analysis import gradcam, selectivity, weights
from afi_search.analysis.gradcam import GradCamResult, gradcam_sheet
from afi_search.analysis.networks import BlockIndex
from afi_search.analysis.selectivity import selectivity_plot
from afi_search.analysis.weights import COLUMNS, weights_plot
from afi_search.report.style import png

SHORT = "resnet20"
LONG = "mobilenetv2(base-r16-cbam-shared, off, B-r32-eca-shared, B-r8-se, base-r16-ge-shared)"
FACTS = "trial 123: 71.2 % of the validation images after 300 epochs"


@pytest.fixture(autouse=True)
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at every text of a figure when it is drawn."""

    def checked(figure: Figure) -> bytes:
        picture = png(figure)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        whole = figure.get_tightbbox(canvas.get_renderer()).transformed(figure.dpi_scale_trans)
        shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
        boxes = [text.get_window_extent() for text in shown]
        for text, box in zip(shown, boxes, strict=True):
            assert box.x0 >= whole.x0 and box.x1 <= whole.x1, text.get_text()
            assert box.y0 >= whole.y0 and box.y1 <= whole.y1, text.get_text()
        for (one, box), (other, beside) in combinations(zip(shown, boxes, strict=True), 2):
            assert not box.padded(-2).overlaps(beside), f"{one.get_text()} on {other.get_text()}"
        return picture

    for module in (gradcam, selectivity, weights):
        monkeypatch.setattr(module, "png", checked)


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return picture.size


def readings(depths: list[int]) -> DataFrame:
    rows = [
        (stage, block, source, share, 0.1)
        for stage, depth in enumerate(depths, start=1)
        for block in range(2, depth + 1)
        for source, share in enumerate(torch.rand(block - 1).softmax(0).tolist(), start=1)
    ]
    return DataFrame(rows, columns=list(COLUMNS))


@pytest.mark.parametrize("name", [SHORT, LONG])
@pytest.mark.parametrize("depths", [[2], [2, 3, 4, 3, 3], [5, 5, 5], [18, 18, 18], [3, 8, 36, 3]])
def test_weights_of_any_network(name: str, depths: list[int]) -> None:
    width, _ = size(weights_plot(name, FACTS, readings(depths)))
    assert width < 2600


def test_a_weight_of_zero_is_drawn() -> None:
    only_one = DataFrame([(1, 3, 1, 1.0, 0.0), (1, 3, 2, 0.0, 0.0)], columns=list(COLUMNS))
    assert size(weights_plot(SHORT, FACTS, only_one))[0] > 500


@pytest.mark.parametrize("depths", [[2, 3, 4, 3, 3], [18, 18, 18]])
@pytest.mark.parametrize("networks", [1, 2, 3])
def test_selectivity_of_any_network(depths: list[int], networks: int) -> None:
    drawn = []
    for _ in range(networks):
        values = {
            BlockIndex(stage, block): torch.rand(16)
            for stage, depth in enumerate(depths, start=1)
            for block in range(1, depth + 1)
        }
        drawn.append((f"{LONG}, {FACTS}", values))
    assert size(selectivity_plot("Class selectivity", drawn))[0] > 1500


def test_channels_that_are_all_alike_or_silent_are_drawn() -> None:
    values = {BlockIndex(1, 1): torch.full((4,), 0.5), BlockIndex(1, 2): torch.empty(0)}
    assert size(selectivity_plot("Class selectivity", [(SHORT, values)]))[0] > 1500


@pytest.mark.parametrize("count", [1, 8])
def test_maps_of_any_number_of_images(count: int) -> None:
    images = torch.zeros(count, 32, 32, 3, dtype=torch.uint8)
    result = GradCamResult(torch.zeros(count, 32, 32), torch.zeros(count), torch.ones(count))
    names = ["aquarium fish"] * count
    rows = [(f"{name}, {FACTS}", result, names) for name in (SHORT, LONG)]
    few, more = (size(gradcam_sheet("Title", images, names, rows[:n]))[1] for n in (1, 2))
    assert more > few
