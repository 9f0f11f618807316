"""Whatever is drawn, every word of it lies within the picture."""

from __future__ import annotations

import io

import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from afi_search.analysis.blocks import Place
from afi_search.analysis.figure import Sheet
from afi_search.analysis.gradcam import Looks
from afi_search.analysis.gradcam_sheet import gradcam_sheet
from afi_search.analysis.selectivity_plot import selectivity_plot
from afi_search.analysis.weights import Reading
from afi_search.analysis.weights_plot import weights_plot

SHORT = "resnet20"
LONG = "mobilenetv2(base-r16-cbam-shared, off, B-r32-eca-shared, B-r8-se, base-r16-ge-shared)"
FACTS = "trial 123: 71.2 % of the validation images after 300 epochs"


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at every text of a sheet when it is drawn."""
    draw = Sheet.png

    def checked(sheet: Sheet) -> bytes:
        png = draw(sheet)
        whole = sheet.figure.bbox
        for text in sheet.figure.findobj(Text):
            if text.get_visible() and text.get_text():
                box = text.get_window_extent()
                assert box.x0 >= whole.x0 and box.x1 <= whole.x1, text.get_text()
                assert box.y0 >= whole.y0 and box.y1 <= whole.y1, text.get_text()
        return png

    monkeypatch.setattr(Sheet, "png", checked)


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return picture.size


def readings(depths: list[int]) -> dict[Place, Reading]:
    result = {}
    for stage, depth in enumerate(depths, start=1):
        for block in range(2, depth + 1):
            shares = torch.rand(block - 1).softmax(0).tolist()
            result[Place(stage, block)] = Reading(
                tuple(range(1, block)), tuple(shares), tuple(0.1 for _ in shares)
            )
    return result


@pytest.mark.parametrize("name", [SHORT, LONG])
@pytest.mark.parametrize("depths", [[2], [2, 3, 4, 3, 3], [5, 5, 5], [18, 18, 18], [3, 8, 36, 3]])
def test_weights_of_any_network(name: str, depths: list[int]) -> None:
    width, _ = size(weights_plot(name, FACTS, readings(depths)))
    assert width < 2600


def test_a_weight_of_zero_is_drawn() -> None:
    only_one = {Place(1, 3): Reading((1, 2), (1.0, 0.0), (0.0, 0.0))}
    assert size(weights_plot(SHORT, FACTS, only_one))[0] > 500


@pytest.mark.parametrize("depths", [[2, 3, 4, 3, 3], [18, 18, 18]])
@pytest.mark.parametrize("networks", [1, 2, 3])
def test_selectivity_of_any_network(depths: list[int], networks: int) -> None:
    drawn = []
    for _ in range(networks):
        values = {
            Place(stage, block): torch.rand(16)
            for stage, depth in enumerate(depths, start=1)
            for block in range(1, depth + 1)
        }
        drawn.append((f"{LONG}, {FACTS}", values))
    assert size(selectivity_plot("Class selectivity", drawn))[0] > 1500


def test_channels_that_are_all_alike_or_silent_are_drawn() -> None:
    values = {Place(1, 1): torch.full((4,), 0.5), Place(1, 2): torch.empty(0)}
    assert size(selectivity_plot("Class selectivity", [(SHORT, values)]))[0] > 1500


@pytest.mark.parametrize("count", [1, 8])
def test_maps_of_any_number_of_images(count: int) -> None:
    images = torch.zeros(count, 32, 32, 3, dtype=torch.uint8)
    looks = Looks(torch.zeros(count, 32, 32), torch.zeros(count), torch.ones(count))
    names = ["aquarium fish"] * count
    rows = [(f"{name}, {FACTS}", looks, names) for name in (SHORT, LONG)]
    few, more = (size(gradcam_sheet("Title", images, names, rows[:n]))[1] for n in (1, 2))
    assert more > few
