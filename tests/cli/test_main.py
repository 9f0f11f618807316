from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from afi_search.cli.main import app
from afi_search.cli.space import first_sentence
from afi_search.report import paper_table
from afi_search.space.loading import shipped_spaces
from afi_search.study.paper import paper_results
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


def test_what_a_command_shows_is_json_for_programs(study: Path) -> None:
    printed = json.loads(call("front", study, "--json"))
    assert printed == json.loads((study / "front.json").read_text())
    assert "digits" in [row["space"] for row in json.loads(call("spaces", "--json"))]


def test_a_port_that_there_is_not_is_told() -> None:
    result = CliRunner().invoke(app, ["dashboard", "study", "--port", "99999"])
    assert result.exit_code == 2
    assert "65535" in result.output


def test_report_writes_one_page(study: Path) -> None:
    assert str(study / "report.html") in call("report", study)
    assert (study / "report.html").stat().st_size > 0


def test_table_prints_the_papers_rows_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [row for row in paper_results() if "110" in row.model]  # all take a quarter of a minute
    monkeypatch.setattr(paper_table, "paper_results", lambda: few)
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
    assert "Infeasible, and never tried: plain, dearest." in output
    assert "2 epochs of 1,150 images" in output
    rows = json.loads(call("inspect", path, "--json"))
    assert [row["which"] for row in rows] == ["plain", "cheapest", "dearest"]
    assert rows[1]["architecture"] == "resnet20(base-r4)"
    assert rows[1]["trial_macs"] == 3 * rows[1]["macs"] * 2 * 1150


@pytest.mark.parametrize("command", ["front", "report"])
def test_what_is_no_study_is_told_with_code_2(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(app, [command, str(tmp_path)])

    assert result.exit_code == 2
    assert "is not a study's folder" in result.output


def commands(group: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """Yield the names of all commands, those of groups below their group's."""
    yield names
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, *names, name)


COMMANDS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_that_its_parser_takes(
    names: tuple[str, ...],
) -> None:
    told = call(*names, "-h")
    assert told == call(*names, "--help")
    (example,) = re.findall(r"Example: afi-search (.*)", told)

    words = shlex.split(example)
    command: Any = typer.main.get_command(app)
    context = None
    assert words[: len(names)] == list(names)
    while isinstance(command, TyperGroup):
        context = command.make_context("afi-search", words, parent=context)
        _, command, words = command.resolve_command(context, words)
        assert command is not None
    command.make_context("afi-search", words, parent=context)


@pytest.mark.parametrize("program", ["afi_search", "afi_search.run"])
def test_modules_run_as_the_program(program: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", program, "-h"], capture_output=True, text=True, timeout=250
    ).stdout

    assert f"Usage: python -m {program}" in told
    assert ("--preset" in told) == (program == "afi_search.run")


def test_version() -> None:
    assert call("--version") == f"afi-search {version('afi-search')}\n"


def test_shells_complete_commands() -> None:
    assert "--install-completion" in call("--help")
    words = {"COMP_WORDS": "afi-search insp", "COMP_CWORD": "1"}
    told = CliRunner(env={"_AFI_SEARCH_COMPLETE": "complete_bash", **words}).invoke(
        app, prog_name="afi-search"
    )

    assert told.output.split() == ["inspect"]


def test_spaces_lists_the_space_files_each_with_what_is_searched() -> None:
    told = call("spaces")

    assert len(shipped_spaces()) >= 8
    for name, path in shipped_spaces().items():
        sentence = first_sentence(path.read_text())
        assert 20 < len(sentence) < 200
        assert name in told
        assert sentence.split()[0] in told


def test_without_optuna_dashboard_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    told = CliRunner().invoke(app, ["dashboard", "studies/reference/resnet20-digits"])
    assert told.exit_code == 2
    assert "pip install 'afi-search[dashboard]'" in told.output
