from __future__ import annotations

import re
from pathlib import Path

import pytest
from pandas import DataFrame, concat

from afi_search.promote.confirm_results import COLUMNS as CONFIRMED_COLUMNS
from afi_search.report.page import write_page
from afi_search.report.view import StudyView
from afi_search.search.rank import audited
from afi_search.study.info import StudyInfo
from tests.report.browser import OpenedPage, cut_off, open_page
from tests.report.synthetic_records import empty, searched, study_info

INFO = study_info()
EVERYTHING = [
    "front",
    "progress-trials",
    "progress-hours",
    "curves",
    "stages",
    "importance",
    "choices",
    "timeline",
]


def two_backbones() -> DataFrame:
    parts = [
        searched(4, info=study_info(backbones=(name,)), pruning=False)
        for name in ("resnet20", "resnet32")
    ]
    records = concat(parts, ignore_index=True)
    return records.assign(number=range(len(records)))


def drawn(page: OpenedPage) -> list[str]:
    """The plots in which the browser has really drawn marks, lines or bars."""
    parts = re.split(r'<div id="([\w-]+)" class="[^"]*js-plotly-plot', page.dom)[1:]
    return [
        name
        for name, content in zip(parts[::2], parts[1::2], strict=True)
        if re.search(r'<path class="(point|js-line)\b|<g class="point">', content)
    ]


@pytest.mark.parametrize(
    ("records", "info", "plots"),
    [
        pytest.param(searched(60, info=INFO), INFO, EVERYTHING, id="whole study"),
        pytest.param(
            searched(3, info=INFO, best=0.16, pruning=False),
            INFO,
            ["front", "progress-trials", "progress-hours", "curves", "choices", "timeline"],
            id="three trials",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            searched(9, info=INFO, full_share=0).iloc[4:],
            INFO,
            ["front", "curves", "timeline"],
            id="no full trial",
        ),
        pytest.param(
            two_backbones(),
            study_info(backbones=("resnet20", "resnet32")),
            ["front", "progress-trials", "progress-hours", "curves", "timeline"],
            id="two backbones",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            empty(), study_info(dataset="digits", num_classes=10), [], id="before any trial"
        ),
    ],
)
def test_a_browser_draws_every_plot_without_complaint(
    records: DataFrame, info: StudyInfo, plots: list[str], tmp_path: Path
) -> None:
    page = write_page(StudyView(records, info), tmp_path / "study")
    assert page.name == "report.html"
    opened = open_page(page, tmp_path / "profile")
    assert opened.console == []
    assert drawn(opened) == plots


@pytest.mark.parametrize("width", [360, 412])
def test_a_phone_shows_all_but_the_last_columns_of_the_front(width: int, tmp_path: Path) -> None:
    page = write_page(StudyView(searched(60, info=INFO), INFO), tmp_path / "study")
    scrolled_to = ["vs plain", "parameters", "paper FLOPs, G", "seed"]
    assert cut_off(page, tmp_path / "profile", width) == scrolled_to


def test_the_page_tells_what_was_pruned_saved_and_lost(tmp_path: Path) -> None:
    records = searched(60, info=INFO)
    text = write_page(StudyView(records, INFO), tmp_path).read_text(encoding="utf-8")
    pruned = records[records["state"] == "pruned"]
    for epoch, number in pruned["epochs"].value_counts().items():
        assert f"{number} after epoch {epoch}" in text
    saved = int((INFO.epochs - pruned["epochs"]).sum())
    assert f"there would have been {saved:,} epochs more" in text
    share = saved / (saved + records["epochs"].sum())
    assert f"{100 * share:.0f} % were saved" in text
    assert f'<td class="text">saved by pruning</td><td class="number">{saved:,}</td>' in text
    assert "loss became nan at epoch 3" in text
    assert "0123abc" in text


def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    text = write_page(StudyView(searched(12, info=INFO), INFO), tmp_path).read_text(
        encoding="utf-8"
    )
    assert re.findall(r"<(?:script|img|iframe|link)[^>]*(?:src|href)=\"(?!data:)", text) == []


def test_what_is_confirmed_stands_on_the_page_with_its_intervals(tmp_path: Path) -> None:
    records = searched(3, info=INFO, pruning=False)
    assert "The confirmed front" not in write_page(StudyView(records, INFO), tmp_path).read_text(
        "utf-8"
    )
    table = DataFrame(
        {
            "architecture": ["resnet32(off, off, B-r16)"],
            "origin": ["front"],
            "verdict": ["stands"],
            "seeds": [3],
            "test": [0.701],
            "test_low": [0.696],
            "test_high": [0.706],
            "validation": [0.711],
            "validation_low": [0.704],
            "validation_high": [0.718],
            "macs": [70_000_000],
            "params": [470_000],
            "paper_gflops": [4.6],
        },
        columns=list(CONFIRMED_COLUMNS),
    )
    text = write_page(StudyView(records, INFO, table), tmp_path).read_text("utf-8")
    section = text.split("The confirmed front")[1].split("</table>")[0]
    assert "70.1 \N{PLUS-MINUS SIGN} 0.5" in section
    assert "71.1 \N{PLUS-MINUS SIGN} 0.7" in section
    assert "stands" in section


def test_the_page_says_what_scores_are_worth(tmp_path: Path) -> None:
    records = searched(40, info=INFO)
    full = records.loc[records["full"], ["architecture", "accuracy"]].set_index("architecture")
    scores = full.rename(columns={"accuracy": "inherited"})
    table = audited(records, scores, {"inherited": 6.25})
    table.attrs["training"] = 6.2
    text = write_page(StudyView(records, INFO, audit=table), tmp_path).read_text("utf-8")
    section = text.split("What scores are worth")[1].split("</table>")[0]
    assert "The supernet orders architectures better than their size does" in section
    assert '<td class="number">6.2</td>' in section
    assert "training the supernet cost 6.2 trials" in text
    assert "What scores are worth" not in write_page(StudyView(records, INFO), tmp_path).read_text()


def test_the_page_says_which_trials_started_with_inherited_weights(tmp_path: Path) -> None:
    records = searched(20, info=INFO)
    assert "inherited" not in write_page(StudyView(records, INFO), tmp_path).read_text("utf-8")
    heirs = records.assign(init="inherited")
    text = write_page(StudyView(heirs, INFO), tmp_path).read_text("utf-8")
    assert "20 trials started with inherited weights" in text
    assert "weights at first" in text.split("<table")[1]


def test_every_point_of_a_trials_lines_tells_what_is_known_of_it(tmp_path: Path) -> None:
    records = searched(12, info=INFO)
    page = write_page(StudyView(records, INFO), tmp_path)
    look = """<script>
    for (const name of ['curves', 'choices'])
      for (const trace of document.getElementById(name).data) {
        const texts = new Set(trace.hovertext), all = trace.hovertext.length;
        console.log(name, trace.meta.trials.length, texts.size, all,
          trace.meta.points.reduce((a, b) => a + b), [...texts].join('').match(/trial #/g).length);
      }
    </script>"""
    page.write_text(page.read_text("utf-8").replace("</body>", f"{look}</body>"), "utf-8")
    said = [line.split('"')[1].split() for line in open_page(page, tmp_path / "profile").console]
    assert {name for name, *_ in said} == {"curves", "choices"}
    for _, trials, texts, hovers, points, named in said:
        assert trials == texts == named
        assert hovers == points
    full = int(records["full"].sum())
    assert sum(int(trials) for name, trials, *_ in said if name == "choices") == full


def test_all_trials_are_listed_and_a_filter_finds_some_of_them(tmp_path: Path) -> None:
    records = searched(60, info=INFO)
    records.loc[records["number"] == 36, "reason"] = "<script>console.log('run')</script>"
    page = write_page(StudyView(records, INFO), tmp_path)
    look = """<script>
    const listed = () => document.querySelectorAll('#trials tr').length;
    const told = document.getElementById('trials').textContent;
    console.log('all', listed(), told.includes('<script>'));
    const first = document.querySelector('#trials details').textContent;
    console.log('first', first.includes('% after 4,'));
    wanted.value = 'pruned base-r4'; wanted.dispatchEvent(new Event('input'));
    console.log('some', listed());
    </script>"""
    page.write_text(page.read_text("utf-8").replace("</body>", f"{look}</body>"), "utf-8")
    said = [line.split('"')[1].split() for line in open_page(page, tmp_path / "profile").console]
    pruned = records[records["state"] == "pruned"]["architecture"].str.contains("base-r4")
    assert said == [["all", "60", "true"], ["first", "true"], ["some", str(pruned.sum())]]
    assert 0 < pruned.sum() < 60


@pytest.mark.parametrize(("width", "tick"), [(1280, "xtick"), (500, "ytick")])
def test_the_choices_have_their_axes_below_each_other_on_a_phone(
    width: int, tick: str, tmp_path: Path
) -> None:
    page = write_page(StudyView(searched(40, info=study_info()), study_info()), tmp_path / "study")
    opened = open_page(page, tmp_path / "profile", width)
    assert not opened.console
    named = rf'class="{tick}"><text [^>]*data-unformatted="stage 1&lt;br&gt;width"'
    assert re.search(named, opened.dom)
