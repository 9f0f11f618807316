"""What a command does not import: help, reading a study and a mistake come at once."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from afi_search.cli.main import app
from tests.cli.test_main import commands
from tests.search.studies import conductor_costs, conductor_for, play, space_file

NETWORKS = {"torch", "torchvision", "timm"}
PICTURES = {"matplotlib", "plotly"}
HEAVY = {*NETWORKS, *PICTURES, "ray", "sklearn", "captum", "pandas", "optuna", "numpy"}


def imported(*commands: list[str], exit_code: int = 0) -> set[str]:
    """Run commands, one after another, in a process of their own; return which of HEAVY it has."""
    program = (
        "import sys\n"
        "from afi_search.cli.main import app\n"
        f"for words in {commands!r}:\n"
        "    try:\n"
        "        app(words)\n"
        "    except SystemExit as end:\n"
        f"        assert end.code == {exit_code}, words\n"
        f"print('IMPORTED', *({HEAVY!r} & set(sys.modules)))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=250
    )
    assert told.returncode == 0, told.stderr
    return set(told.stdout.rpartition("IMPORTED")[2].split())


@pytest.fixture
def study(tmp_path: Path) -> str:
    file = space_file()
    _, conductor = conductor_for(file, tmp_path)
    play(conductor)
    conductor_costs(file).table.write(tmp_path)
    return str(tmp_path)


def test_help_imports_nothing_heavy() -> None:
    every = [[*names, "--help"] for names in commands(typer.main.get_command(app))]
    assert len(every) > 12
    assert imported(*every, ["--version"], ["spaces"]) == set()


def test_explaining_a_trial_imports_neither_networks_nor_pictures_nor_ray(study: str) -> None:
    assert imported(["explain", study, "1"]) == {"optuna", "numpy"}


def test_a_front_is_written_without_networks_and_ray(study: str) -> None:
    assert imported(["front", study]) == {*PICTURES, "pandas", "optuna", "numpy"}


def test_a_report_is_written_without_networks_and_ray(study: str) -> None:
    assert not imported(["report", study]) & {*NETWORKS, "ray", "captum"}


def test_a_mistyped_key_is_told_before_anything_is_imported_for_training(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("backbone: resnet20\nstages: {all: {width: [off]}}\nrecipe: {epoch: 3}\n")

    for command in ("run", "inspect"):
        found = imported([command, str(path)], exit_code=2)
        assert not found & {*NETWORKS, *PICTURES, "ray", "sklearn"}


@pytest.mark.parametrize("command", ["run digits", "confirm STUDY", "promote STUDY --data nowhere"])
def test_a_dead_address_is_told_before_networks_are_imported(study: str, command: str) -> None:
    words = [word.replace("STUDY", study) for word in command.split()]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
        found = imported([*words, "--address", dead], exit_code=2)
    assert "ray" in found
    assert not found & {*NETWORKS, *PICTURES, "sklearn", "pandas", "optuna"}


def test_a_space_is_read_and_enumerated_without_torch() -> None:
    program = (
        "import sys, afi_search as afi\n"
        "space = afi.Space.load('resnet')\n"
        "assert space[5] in space\n"
        "assert str(afi.Architecture.parse('resnet20(B-r4)')) == 'resnet20(B-r4)'\n"
        f"sys.exit(', '.join({HEAVY!r} & set(sys.modules)) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=250)
