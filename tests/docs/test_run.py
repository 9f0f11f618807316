"""The blocks of the documents, run as a reader would; which cannot be run here, and why."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, commands
from tests.docs.test_commands import EXAMPLES
from tests.docs.test_recorded import RECORDED

RUN = ["README", "docs/tutorial", "docs/python", "docs/report", "docs/space", "docs/monitoring"]
RUN += ["docs/faults", "docs/extend", "docs/supernet"]
NOT_HERE = {
    r"^pip |venv|^pre-commit": "an environment of its own; `.ci/run` gives README's command",
    r"^pytest|^\.ci/run": "these tests themselves",
    r"docker|^kubectl|^sbatch|--address auto|ray start": "a cluster or a container engine",
    r"IMAGENET|/data/imagenet": "ImageNet",
    r"resnet\.yaml|run resnet |run paper": "minutes to weeks on CIFAR-100",
    r"^afi-search confirm studies/resnet20-digits": "an hour: 300 epochs, several seeds",
    r"benchmarks\.": "minutes to days; tests/benchmarks runs them small",
    r"^afi-search dashboard|^mkdocs serve": "a server, which runs until Ctrl-C",
    r"^ray get-auth-token": "Ray's token, of this machine",
}
"""Commands that no test gives as they are written -> what they take."""
ENVIRONMENT = {
    **os.environ,
    "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
}


def gives(command: list[str], folder: Path, environment: Mapping[str, str] = ENVIRONMENT) -> str:
    """Run a command; return what it printed."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def not_here(command: str) -> bool:
    """Tell whether no test gives the command."""
    if command.startswith("afi-search inspect"):
        return False
    return any(re.search(pattern, command) for pattern in NOT_HERE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_is_run_or_is_one_that_cannot_be(page: Path) -> None:
    if str(page.relative_to(ROOT).with_suffix("")) not in RUN:
        for block in blocks(page):
            if block.language == "sh":
                assert all(map(not_here, commands(block))), str(block)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    """Blocks with a title are saved, commands and Python are run, in order."""
    if page == "docs/monitoring":
        pytest.importorskip("mlflow")
    for name in ("spaces", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    if page in ("docs/report", "docs/space", "docs/faults"):  # what earlier pages have made
        for name in ("resnet20-digits", "mine-digits"):
            shutil.copytree(RECORDED, tmp_path / "studies" / name)
    python = ""
    for block in blocks(ROOT / f"{page}.md"):
        if block.title:
            with (tmp_path / block.title).open("a") as file:
                file.write(block.text)
        elif block.language == "sh":
            for command in commands(block):
                if not not_here(command):
                    gives(["bash", "-euc", command], tmp_path)
        elif block.language == "python" and not not_here(block.text):
            python += block.text
    gives([sys.executable, "-c", python], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_searched(name: str, tmp_path: Path) -> None:
    space = ROOT / f"docs/examples/{name}.yaml"
    printed = gives(["afi-search", "run", str(space)], tmp_path)
    assert "Front of" in printed
    assert "failed" not in printed
