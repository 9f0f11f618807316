"""In a terminal of 40 columns, every table shows its names whole, and no figure is cut."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from afi_search.analysis.memory import rich_table
from afi_search.cli.common import console
from afi_search.cli.confirm import shown
from afi_search.cli.main import app
from afi_search.cli.screen import Screen
from afi_search.promote.confirm_results import read_confirmed
from afi_search.report.paper_table import compare
from afi_search.space.loading import shipped_spaces
from afi_search.study.study import Study
from tests.analysis.test_table6 import NETWORKS, TABLE
from tests.docs.pages import ROOT
from tests.search.studies import conductor_for, play, space_file

DIGITS = ROOT / "studies/reference/resnet20-digits"
CONFIRMED = ROOT / "studies/reference/resnet20-16px-cifar100"
WIDTH = 40


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def check(told: str, names: list[str]) -> None:
    assert "\N{HORIZONTAL ELLIPSIS}" not in told
    columns = [
        "".join("".join(line[left:right] for line in told.splitlines()).split())
        for left in range(8)
        for right in (*range(left + 12, WIDTH + 1), None)
    ]
    assert [name for name in names if not any(name.replace(" ", "") in c for c in columns)] == []


def printed(table: RenderableType) -> str:
    narrow = Console(width=WIDTH, color_system=None)
    with narrow.capture() as capture:
        narrow.print(table)
    assert max(map(len, capture.get().splitlines())) <= WIDTH
    return capture.get()


@pytest.mark.parametrize("command", ["front", "explain", "list", "status", "compare"])
def test_views_of_studies(tmp_path: Path, command: str) -> None:
    studies = [copytree(DIGITS, tmp_path / name) for name in ("one", "a-study-of-a-longer-name")]
    of = Study.open(studies[0])
    names = {
        "front": [*of.front()["architecture"]],
        "explain": [of.records()["architecture"][3]],
        "list": [str(study) for study in studies],
    }.get(command, [study.name for study in studies])
    arguments = {
        "front": ["front", studies[0]],
        "explain": ["explain", studies[0], 3],
        "list": ["study", "list", "--studies", tmp_path],
        "status": ["study", "status", studies[1]],
        "compare": ["compare", *studies, "--to", tmp_path / "page.html"],
    }[command]
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    check(done.stdout, names[1:] if command == "status" else names)


def test_the_spaces_and_the_papers_table() -> None:
    check(CliRunner().invoke(app, ["spaces"]).stdout, [*shipped_spaces()])
    told = CliRunner().invoke(app, ["table"]).stdout
    check(told, [row.paper.model for row in compare()])
    check(told, [row.our_params for row in compare()])


def test_peak_memory_and_a_confirmed_front() -> None:
    check(printed(rich_table(TABLE)), [*map(str, NETWORKS)])
    confirmed = read_confirmed(Study.open(CONFIRMED))
    assert len(confirmed)
    check(printed(shown(confirmed, "a study")), [*confirmed["architecture"]])


def test_the_trials_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    ledger, conductor = conductor_for(space_file(), tmp_path, on_change=screen.trial_changed)
    screen.study_opened(Study.open(tmp_path))
    play(conductor)
    monkeypatch.setattr(type(console), "height", 200)
    shown = ledger.records().tail(8)
    told = printed(screen._render())
    check(told, [*shown["architecture"]])
    assert [each for each in shown["accuracy"] if f"{100 * each:.2f} %" not in told] == []
