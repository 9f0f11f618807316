from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afi_search.cli.main import app
from tests.search.studies import conductor_for, play, space_file


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    _, conductor = conductor_for(space_file(), folder)
    play(conductor)
    return folder


def call(*arguments: object) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_front_writes_the_files_and_shows_the_front(study: Path) -> None:
    output = call("front", study)

    for name in ("front.csv", "front.json", "front.html", "front.png", "trials.csv"):
        assert (study / name).stat().st_size > 0
        assert str(study / name) in output
    document = json.loads((study / "front.json").read_text())
    assert document["front"]
    assert all(f"#{point['number']}" in output for point in document["front"])


def test_report_writes_one_page(study: Path) -> None:
    assert str(study / "report.html") in call("report", study)
    assert (study / "report.html").stat().st_size > 0


def test_table_prints_the_papers_rows_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(call("table", "--json"))

    assert "AFI-ResNet-110" in call("table")
    assert "AFI-ResNet-110" in json.dumps(rows)


def test_inspect_tells_size_extremes_and_the_time_of_a_trial(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "backbone: resnet20\n"
        "stages: {all: {width: [off, base], ratio: [4]}}\n"
        "data: {name: digits}\n"
        "constraints: {macs: 40M}\n"
        "recipe: {epochs: 2, batch_size: 8}\n"
    )
    output = call("inspect", path)

    assert "8 architectures, 7 of them" in output
    assert "cheapest: resnet20(base-r4)" in output
    assert "dearest: resnet20\n" in output
    assert "2 epochs of 1,150 images" in output


@pytest.mark.parametrize("command", ["front", "report"])
def test_what_is_no_study_is_told_with_code_2(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(app, [command, str(tmp_path)])

    assert result.exit_code == 2
    assert "is not a study's folder" in result.output
