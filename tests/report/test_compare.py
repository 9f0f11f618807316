from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest
from typer.testing import CliRunner

from afi_search.cli.main import app
from afi_search.errors import UserError
from afi_search.report.compare import compare_studies, comparison_figure, comparison_page
from afi_search.study.study import Study
from tests.docs.pages import ROOT
from tests.search.studies import conductor_for, play, space_file

RECORDED = ROOT / "studies/reference/resnet20-digits"


def searched(folder: Path, **changes: object) -> Study:
    folder.mkdir()
    _, conductor = conductor_for(space_file(**changes), folder)
    play(conductor)
    return Study.open(folder)


def test_fronts_are_compared_in_one_box(tmp_path: Path) -> None:
    one = searched(tmp_path / "one", search={"trials": 12})
    other = searched(tmp_path / "other", search={"trials": 24, "seed": 5})
    comparison = compare_studies([one, other, one])
    assert [row["trials"] for row in comparison.rows] == [12, 24]
    for study, row in zip((one, other), comparison.rows, strict=True):
        assert row["front"] == len(study.front())
        assert row["best"] == study.front()["accuracy"].max()
        assert row["low"] < row["best"] < row["high"]
        assert 0 < row["hypervolume"] < 1
    assert comparison.reference == pytest.approx(one.reference_point())
    first, beyond, second, _ = comparison_figure(comparison).data
    assert list(second.x) == pytest.approx(other.front()["macs"] / 1e6)
    assert min(first.error_y.array) > 0
    assert beyond.x[-1] > max(second.x) and beyond.y[-1] == first.y[-1]
    page = comparison_page(comparison)
    assert "Fronts of 2 studies" in page
    assert "https://" not in page.split("</head>")[1]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one = searched(tmp_path / "one")
    other = searched(tmp_path / "other", objectives=["accuracy", "params"])
    with pytest.raises(UserError, match=r"its cost is params, and that of .*one macs"):
        compare_studies([one, other])
    with pytest.raises(UserError, match=r"name two studies to compare, or more: .*one is one"):
        compare_studies([one, one])


@pytest.mark.parametrize("width", [40, 80])
def test_names_stay_whole_on_a_narrow_terminal(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["resnet20-16px-cifar100", "resnet20-16px-cifar100-other-seed"]
    studies = [str(copytree(RECORDED, tmp_path / "studies" / name)) for name in names]
    monkeypatch.setenv("COLUMNS", str(width))
    asked = ["compare", *studies, "--to", str(tmp_path / "both.html")]
    told = CliRunner().invoke(app, asked).stdout.splitlines()
    assert all(any(name in line.split() for line in told) for name in names)
    listed = CliRunner().invoke(app, ["study", "list", "--studies", str(tmp_path / "studies")])
    assert all(any(line.endswith(name) for line in listed.stdout.splitlines()) for name in names)


def test_the_command_writes_a_page_and_prints_json(tmp_path: Path) -> None:
    one = copytree(RECORDED, tmp_path / "one")
    page = tmp_path / "both.html"
    asked = ["compare", str(one), str(RECORDED), "--to", str(page)]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    assert "hypervolume, %" in told.output
    assert page.stat().st_size > 1_000_000
    rows = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert rows[0]["hypervolume"] == rows[1]["hypervolume"]
