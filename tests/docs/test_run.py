"""The blocks of the documents, run as a reader would; which cannot be run here, and why."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, commands
from tests.docs.test_commands import EXAMPLES
from tests.docs.test_recorded import RECORDED

RUN = ["README", "docs/tutorial", "docs/python", "docs/report", "docs/space", "docs/monitoring"]
RUN += ["docs/faults", "docs/extend", "docs/supernet", "docs/paper", "docs/flops"]
FEW_IMAGES = "--set recipe.epochs=1 --set data.train_subset=64 --set data.validation_subset=50"
SHORTER = {
    r"^pip install -e": "--no-deps",
    r"run spaces/resnet\.yaml$|run resnet .*epochs=6": f"--trials 2 {FEW_IMAGES}",
    r"run resnet .*--trials 100": f"--trials 3 {FEW_IMAGES}",
    r"run paper ": FEW_IMAGES,
    r"run shared\.yaml": f"--trials 3 --set search.supernet.epochs=1 {FEW_IMAGES}",
    r"promote .* IMAGENET": "--recipe tiny.yaml --classes 10",
    r"benchmarks\.afi_bench$": "--space spaces/digits.yaml --folder tiny --trainings 1",
    r"benchmarks\.gpu": "sharing --rounds 1",
    r"benchmarks\.afi_step": "--batch 2 --rounds 2",
    r"benchmarks\.trial_throughput": "--images 64 --batch 32",
    r"benchmarks\.imagenet": "--batch 2 --crop 64 --rounds 2",
    r"benchmarks\.memory": "--batch 2 --rounds 0",
    r"benchmarks\.overhead": "--trials 4 --repeats 1 --contenders plain ours",
    r"benchmarks\.growth": "--trials 10 --samplers known-cost",
    r"benchmarks\.search_quality": "--tables afi-bench-16 --seeds 2 --budget 2",
    r"benchmarks\.recipe_rank": "--backbone resnet20 --architectures 3 --short 1 --long 1"
    " --train-subset 64 --validation 50",
}
"""Commands that would take minutes to weeks -> options with which they end in seconds."""
BENCHMARK = r"python -m benchmarks\."
IN_A_COPY = r"^pip install -e|venv|^pre-commit|^pytest|^ray get-auth-token"
"""Commands that change an environment, or what belongs to the person: given in a copy of both."""
SERVER = r"^afi-search dashboard|^mkdocs serve"
NOT_HERE = {
    r"--index-url": "PyTorch's own index, which is not reached from everywhere",
    r"^\.ci/run": "it runs these tests",
    r"docker|^kubectl|^sbatch": "a container engine, Kubernetes or Slurm: tests/docker",
    r"--address auto|ray start": "a cluster: tests/engine/test_cluster.py, tests/docker",
    r"/data/imagenet": "ImageNet; README's promotion is run, on a few images",
    r"^afi-search confirm studies/resnet20-digits": "an hour: 300 epochs, several seeds",
}
"""Commands that no test gives as they are written -> what they take, or where that is tested."""
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
    return any(re.search(pattern, command) for pattern in NOT_HERE)


def elsewhere(command: str) -> bool:
    """Tell whether the test of its page leaves the command out: another one gives it, or none."""
    return not_here(command) or bool(re.search(f"{BENCHMARK}|{IN_A_COPY}|{SERVER}", command))


def shorter(command: str) -> str:
    """Return the command with what makes it end within seconds."""
    return " ".join(
        [command, *(more for what, more in SHORTER.items() if re.search(what, command))]
    )


def given(pattern: str, pages: Sequence[Path] = PAGES) -> list[str]:
    """Return the pages' commands that a pattern is found in, without those that no test gives."""
    found = [c for page in pages for b in blocks(page) if b.language == "sh" for c in commands(b)]
    return [c for c in dict.fromkeys(found) if re.search(pattern, c) and not not_here(c)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_is_run_or_is_one_that_cannot_be(page: Path) -> None:
    if str(page.relative_to(ROOT).with_suffix("")) not in RUN:
        for block in blocks(page):
            if block.language == "sh":
                assert all(map(elsewhere, commands(block))), str(block)


def test_what_no_test_gives_is_said_of_commands_that_there_are() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for pattern in (*NOT_HERE, *SHORTER):
        assert re.search(pattern.replace("^", "").replace("$", ""), text), pattern


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_from_top_to_bottom(
    page: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Blocks with a title are saved, commands and Python are run, in order."""
    if page == "docs/monitoring":
        pytest.importorskip("mlflow")
    for name in ("spaces", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    if page in ("docs/report", "docs/faults"):  # what earlier pages have made
        for name in ("resnet20-digits", "mine-digits"):
            shutil.copytree(RECORDED, tmp_path / "studies" / name)
    if page in ("README", "docs/space"):
        gives(["afi-search", "run", "digits", "--trials", "4"], tmp_path)
    if page == "README":
        for block in blocks(ROOT / "docs/tutorial.md"):
            if block.title in ("pictures.py", "tiny.yaml"):
                (tmp_path / block.title).write_text(block.text.replace("epochs: 4", "epochs: 1"))
        gives([sys.executable, "pictures.py"], tmp_path)
        (tmp_path / "IMAGENET").symlink_to("pictures")
    if page in ("README", "docs/space", "docs/paper"):
        request.getfixturevalue("cifar100_folder")
    python = ""
    for block in blocks(ROOT / f"{page}.md"):
        if block.title:
            with (tmp_path / block.title).open("a") as file:
                file.write(block.text)
        elif block.language == "sh":
            for command in commands(block):
                if not elsewhere(command):
                    gives(["bash", "-euc", shorter(command)], tmp_path)
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


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository, as a reader has it."""
    left_out = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "site", "dist")
    return Path(shutil.copytree(ROOT, tmp_path / "copy", ignore=left_out, symlinks=True))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", given(BENCHMARK))
def test_a_benchmark_runs(command: str, copy: Path, request: pytest.FixtureRequest) -> None:
    if "recipe_rank" in command or "trial_throughput" in command:
        request.getfixturevalue("cifar100_folder")
    gives(["bash", "-euc", shorter(command)], copy, {**ENVIRONMENT, "PYTHONPATH": str(copy)})


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", ["README", "CONTRIBUTING", "docs/install", "docs/monitoring"])
def test_an_environment_is_made(page: str, copy: Path) -> None:
    """Nothing of others is installed, and tests are found and not run."""
    there = [c for c in given(IN_A_COPY, [ROOT / f"{page}.md"]) if shutil.which(c.split()[0])]
    token = ["ray get-auth-token --generate"] if page == "docs/monitoring" else []
    made = [
        "git init -q",
        "python3 -m venv .venv",
        ". .venv/bin/activate",
        *token,
        *map(shorter, there),
    ]
    environment = {
        **{name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"},
        "HOME": str(copy.parent),
        "PYTEST_ADDOPTS": "--collect-only -q -n 0",
    }
    gives(["bash", "-euc", "\n".join(made)], copy, environment)
    installed = [copy / ".venv/bin/python", "-m", "pip", "show", "--files", "afi_search"]
    assert str(copy) in gives(list(map(str, installed)), copy, environment)


@pytest.mark.slow
def test_a_tag_is_the_version(tmp_path: Path) -> None:
    gives(["git", "clone", "-q", "--depth", "1", ROOT.as_uri(), str(tmp_path / "clone")], tmp_path)
    gives(["git", "tag", "v7.6.5"], tmp_path / "clone")
    gives([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "./clone"], tmp_path)
    assert [wheel.name for wheel in tmp_path.glob("*.whl")] == ["afi_search-7.6.5-py3-none-any.whl"]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", given(SERVER))
def test_a_server_answers_until_ctrl_c(command: str, copy: Path, port: int) -> None:
    if command.startswith("afi-search"):
        pytest.importorskip("optuna_dashboard")
    shutil.copytree(RECORDED, copy / "studies/resnet20-digits")
    place = f"--dev-addr 127.0.0.1:{port}" if command.startswith("mkdocs") else f"--port {port}"
    words = shlex.split(f"{command} {place}")
    with subprocess.Popen(words, cwd=copy, env=ENVIRONMENT) as server:
        try:
            while not answers(port):
                assert server.poll() is None
                time.sleep(0.5)
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/") as page:
            return bool(page.status == 200)
    except OSError:
        return False
