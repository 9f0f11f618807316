"""The tutorial and the examples, run as a reader would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.test_commands import EXAMPLES

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


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", ["tutorial", "python"])
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    """Blocks with a title are saved, commands and Python are run, in order."""
    (tmp_path / "spaces").symlink_to(ROOT / "spaces")
    python = ""
    for block in blocks(ROOT / f"docs/{page}.md"):
        if block.title:
            with (tmp_path / block.title).open("a") as file:
                file.write(block.text)
        elif block.language == "sh":
            gives(["bash", "-euc", block.text], tmp_path)
        elif block.language == "python" and "imagenet" not in block.text:
            python += block.text
    gives([sys.executable, "-c", python], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_searched(name: str, tmp_path: Path) -> None:
    space = ROOT / f"docs/examples/{name}.yaml"
    printed = gives(["afi-search", "run", str(space)], tmp_path)
    assert "Front of" in printed
    assert "failed" not in printed
