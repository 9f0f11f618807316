"""Every block of the documents is right: commands parse, files are there, Python and YAML hold."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from ray.scripts.scripts import cli as ray_cli
from ruamel.yaml import YAML
from typer.core import TyperGroup

import afi_search
from afi_search.cli.main import app
from afi_search.space import Space
from afi_search.space.loading import SpaceDocument
from tests.docs.pages import PAGES, ROOT, Block, blocks, commands, of_language

EXAMPLES = sorted(path.stem for path in (ROOT / "docs/examples").glob("*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MADE = re.compile(r"(studies|models|pictures)/|mine\.yaml|tiny\.yaml|pictures\.py|cifar-100-python")
"""Files that a reader's own commands make."""


def parses(arguments: Sequence[str]) -> None:
    """Make sure that afi-search takes the arguments; nothing is run."""
    command: Any = typer.main.get_command(app)
    context, words = None, list(arguments)
    while isinstance(command, TyperGroup):
        context = command.make_context("afi-search", words, parent=context)
        _, command, words = command.resolve_command(context, words)
        assert command is not None
    command.make_context("afi-search", words, parent=context)


def extras_exist(arguments: Sequence[str]) -> None:
    for wanted in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
        assert set(wanted.split(",")) <= set(PROJECT["optional-dependencies"])


def module_takes(arguments: Sequence[str]) -> None:
    """Make sure that the module is there and knows the options."""
    module, *rest = arguments
    if module in ("venv", "build"):
        return
    if module == "afi_search.run":
        parses(["run", *rest])
        return
    source = (ROOT / Path(*module.split(".")).with_suffix(".py")).read_text()
    for option in (word for word in rest if word.startswith("--")):
        parameter = option.removeprefix("--").replace("-", "_")  # of a typer program
        assert re.search(rf'"{option}"|^    {parameter}: ', source, re.MULTILINE), option


def compose_has(arguments: Sequence[str]) -> None:
    """Make sure that compose.yaml has the services, profiles and volumes that are named."""
    services = YAML(typ="safe").load(ROOT / "docker/compose.yaml")["services"]
    words = " ".join(arguments)
    profiles = {name for service in services.values() for name in service.get("profiles", ())}
    assert set(re.findall(r"--profile (\S+)", words)) <= profiles
    named = re.findall(r"exec (\S+)|--scale ([\w-]+)=|(\S+):/\w", words)
    assert {name for found in named for name in found if name} <= set(services)
    mounted = {mount.split(":")[1] for mount in services["head"]["volumes"]}
    for folder in re.findall(r" (?:head:|--studies )(/\w+)", words):
        assert folder in mounted, folder


def job_has(arguments: Sequence[str]) -> None:
    """Make sure that rayjob.yaml reads the secret, and is the job, that is named."""
    job = YAML(typ="safe").load(ROOT / "docker/rayjob.yaml")
    text = (ROOT / "docker/rayjob.yaml").read_text()
    if arguments[:2] == ["create", "secret"]:
        assert f"secretName: {arguments[3]}," in text
        key = arguments[4].removeprefix("--from-file=").partition("=")[0]
        assert f"/run/secrets/{key}" in text + (ROOT / "docker/with-secrets.sh").read_text()
    for name in re.findall(r"job-name=(\S+)", " ".join(arguments)):
        assert name == job["metadata"]["name"]


def ray_takes(arguments: Sequence[str]) -> None:
    """Make sure that Ray has the command and its options."""
    command: Any = ray_cli.commands[arguments[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.split("=")[0] for word in arguments[1:] if word.startswith("--")} <= known


def check(command: str) -> None:
    """Make sure that a command is one that a reader can give."""
    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program, *rest = words
    if program.startswith("docker/") or program == ".ci/run":
        assert os.access(ROOT / program, os.X_OK), program
    elif program == "afi-search":
        parses(rest)
    elif program in ("python", "python3") and rest[:1] == ["-m"]:
        module_takes(rest[1:])
    elif program == "pip":
        extras_exist(rest)
    elif program == "docker":
        compose_has(rest)
        if "exec" in rest:
            check(shlex.join(rest[rest.index("with-secrets") + 1 :]))
    elif program == "kubectl":
        job_has(rest)
    elif program == "ray":
        ray_takes(rest)
    elif program == "sbatch":
        module_takes(["afi_search.run", *rest[rest.index("docker/slurm.sh") + 1 :]])
    else:
        assert program in (*("cd", "mkdocs", "pre-commit", "pytest", "python", "."),), (
            f"nothing checks {program!r}"
        )
    for word in rest:
        if re.search(r"\w/\w[\w./-]*\.(yaml|sh|py|csv)$", word) and not MADE.search(word):
            assert (ROOT / word.split("=")[-1]).exists(), word


@pytest.mark.parametrize("block", of_language("sh"), ids=str)
def test_a_command_block_is_one_that_a_reader_can_give(block: Block) -> None:
    shell = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True)
    assert shell.returncode == 0, shell.stderr
    assert commands(block)
    for command in commands(block):
        check(command)


@pytest.mark.parametrize(
    "command",
    [
        "afi-search run resnet --presett smoke",
        "afi-search reprot studies/mine",
        "python -m afi_search.run spaces/nowhere.yaml",
        "python -m benchmarks.afi_step --thread 2",
        "pip install -e '.[exprot]'",
        "docker compose --profile tpu up -d",
        "docker compose exec haed with-secrets afi-search spaces",
        "kubectl create secret generic afi --from-file=database_password=FILE",
        "kubectl logs -f -l job-name=afi",
        "ray start --heed",
        "frobnicate x",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    with pytest.raises(Exception, match=r"No such|nothing checks|assert"):
        check(command)


def names_what_there_is(python: str) -> None:
    """Make sure that imports, our names, and the keywords of calls of them, are there."""
    for node in ast.walk(ast.parse(python)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("afi", "afi_search"):
                assert node.attr in afi_search.__all__
            if node.value.id == "study":
                known = {*dir(afi_search.Study), *afi_search.Study.__annotations__, "file"}
                assert node.attr in known
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            named = {"afi": afi_search, "study": afi_search.Study}.get(owner)
            if named is not None:
                takes = inspect.signature(getattr(named, node.func.attr)).parameters
                assert {keyword.arg for keyword in node.keywords} <= set(takes), node.func.attr


@pytest.mark.parametrize("block", of_language("python"), ids=str)
def test_a_python_block_imports_and_names_what_there_is(block: Block) -> None:
    names_what_there_is(block.text)


def test_what_an_example_does_not_run_is_there() -> None:
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(afi_search.Study) or "")
    names_what_there_is("".join(example.source for example in examples))


@pytest.mark.parametrize(
    "block",
    [block for block in of_language("yaml") if block.title not in ("tiny.yaml", "prometheus.yml")],
    ids=str,
)
def test_a_yaml_block_is_a_space(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    file = [b for b in blocks(block.page) if b.title and b.title == block.title] or [block]
    path.write_text("".join(b.text for b in file if b.line <= block.line))
    document = SpaceDocument.read(path)
    for preset in (None, *document.presets):
        assert Space(document.resolve(preset)).size > 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_site_takes_every_block_for_one(page: Path) -> None:
    for block in blocks(page):  # else its fences are text, and the text behind them is code
        assert re.fullmatch(r'( title="[^"]+")?', block.attributes), str(block)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_space_whose_networks_are_built(
    name: str, third_party: Path, tmp_path: Path
) -> None:
    space = Space.load(ROOT / f"docs/examples/{name}.yaml")
    for architecture in (space[0], space[space.size - 1]):
        afi_search.build(architecture, num_classes=2, image_size=16)


def test_every_example_is_on_the_page() -> None:
    text = (ROOT / "docs/extend.md").read_text()
    for path in (ROOT / "docs/examples").iterdir():
        if path.suffix in (".py", ".yaml"):
            assert f'--8<-- "docs/examples/{path.name}"' in text


def test_the_install_page_has_every_extra() -> None:
    text = (ROOT / "docs/install.md").read_text()
    for extra in PROJECT["optional-dependencies"]:
        assert f"`{extra}`" in text, extra


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs/reference.md").read_text()
    for name in afi_search.__all__:
        assert re.search(rf"^::: afi_search\.([\w.]+\.)?{name}$", text, re.MULTILINE), name


def test_the_citation_names_the_licence() -> None:
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert citation["license"] == PROJECT["license"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    pictures = re.findall(r'src="([^"]+)"', text)
    for link in pictures + re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if report := re.fullmatch(r"reports/([\w-]+)\.html", link):  # docs/reports.py writes it
            assert (ROOT / "studies/reference" / report[1] / "ledger.log").exists(), link
        elif "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("name", ["audit", "release", "tests"])
def test_workflows_keep_their_schema(name: str) -> None:
    path = ROOT / f".github/workflows/{name}.yml"
    schema = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    done = subprocess.run([*schema, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
