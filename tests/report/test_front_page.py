from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from pandas import DataFrame

from afi_search.report.front_plot import front_figure
from afi_search.report.page import front_page
from afi_search.report.view import StudyView
from afi_search.study.info import StudyInfo
from afi_search.study.reference import measure_references
from tests.report.browser import open_page
from tests.report.synthetic_records import empty, record, searched, study_info

INFO = study_info()


class Links(HTMLParser):
    """Collects every address that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            f"{tag} {value}"
            for name, value in attrs
            if name in ("src", "href", "srcset", "data") and not (value or "").startswith("data:")
        ]


def page_of(records: DataFrame, info: StudyInfo) -> str:
    view = StudyView(records, info)
    return front_page(view, front_figure(view))


def written(records: DataFrame, info: StudyInfo, folder: Path) -> Path:
    page = folder / "front.html"
    page.write_text(page_of(records, info), encoding="utf-8")
    return page


def test_the_page_fetches_nothing() -> None:
    links = Links()
    links.feed(page_of(searched(5, info=INFO), INFO))
    assert links.found == []


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(
            searched(3, info=INFO, best=0.16, pruning=False), id="few, far from the paper"
        ),
        pytest.param(empty(), id="none"),
    ],
)
def test_a_browser_draws_it_without_complaint(records: DataFrame, tmp_path: Path) -> None:
    opened = open_page(written(records, INFO, tmp_path), tmp_path / "profile")
    assert opened.console == []
    assert opened.dom.count('class="main-svg"') >= 2
    full = int(records["full"].sum()) if len(records) else 0
    assert opened.dom.count('<path class="point"') >= full + len(measure_references(INFO).paper)


def test_a_complaint_would_be_heard(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text("<script>Plotly.newPlot('nowhere', [])</script>", encoding="utf-8")
    (said,) = open_page(page, tmp_path / "profile").console
    assert "Plotly is not defined" in said


def test_names_and_notes_are_shown_as_they_are_written_and_never_run(tmp_path: Path) -> None:
    nasty = "</script><script>console.log('ran')</script><b>bold</b>"
    info = study_info(note=nasty, name=nasty, device=nasty)
    records = DataFrame([record(0, 0.7, 7e7, architecture=f"net{nasty}")])
    opened = open_page(written(records, info, tmp_path), tmp_path / "profile")
    assert opened.console == []
    assert "<b>bold</b>" not in opened.dom
    assert "&lt;b&gt;bold&lt;/b&gt;" in opened.dom
