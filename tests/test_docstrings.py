"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import inspect
import re
import textwrap
from importlib import import_module
from inspect import ismodule
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import pytest
import torch
from optuna.samplers import QMCSampler

import afi_search
from afi_search import data, space
from afi_search.cost import SpaceCosts
from afi_search.errors import UserError
from afi_search.nn import build
from afi_search.registry import Registry
from afi_search.search.pruners import make_pruner
from afi_search.search.samplers import make_sampler
from afi_search.space import Space

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "afi_search").rglob("*.py"))
    if re.search(r">>> (?!.*\+SKIP)", path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_give_what_they_show(module: str, third_party: Path) -> None:
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def given_by(package: ModuleType) -> list[str]:
    """The names of what a package gives, but for the modules in it."""
    return [name for name, it in vars(package).items() if name[0] != "_" and not ismodule(it)]


GIVEN = [
    *afi_search.__all__,
    *(f"data.{name}" for name in given_by(data)),
    *(f"space.{name}" for name in given_by(space)),
    *(f"study.{name}" for name in ("Ledger", "StudyInfo", "front", "hypervolume")),
]


@pytest.mark.parametrize("name", GIVEN)
def test_whatever_the_package_gives_is_shown_by_an_example(name: str) -> None:
    given = resolve_name(f"afi_search:{name}")
    if isinstance(given, Registry) or (isinstance(given, type) and issubclass(given, UserError)):
        return
    documentation = inspect.getdoc(given) or ""
    assert ">>>" in documentation or "```python" in documentation


EXAMPLES = {"attention": "gate", "backbone": "toynet", "dataset": "shades", "objective": "joules"}


@pytest.mark.parametrize("kind", [*EXAMPLES, "pruner", "sampler"])
def test_a_module_that_registers_works_as_it_is_shown(
    kind: str, third_party: Path, tmp_path: Path
) -> None:
    """The example of a register function is a module, and its space file has these keys."""
    text = inspect.getdoc(getattr(afi_search, f"register_{kind}")) or ""
    if kind in EXAMPLES:
        name = EXAMPLES[kind]
        assert f"docs/examples/{name}.py" in text
        path = ROOT / f"docs/examples/{name}.yaml"
    else:
        example = re.search(r"In `(\w+\.py)` (.*?)```python\n(.*?)```", text, re.DOTALL)
        assert example is not None
        name, intro, module = example.groups()
        (tmp_path / name).write_text(textwrap.dedent(module))
        keys = dict(re.findall(r"`(\w+): ([^`]+)`", intro))
        path = tmp_path / "space.yaml"
        whole = {"backbone": "resnet20", **keys, "stages": "{all: {width: [off, B], ratio: [4]}}"}
        path.write_text("".join(f"{key}: {value}\n" for key, value in sorted(whole.items())))

    space = Space.load(path)

    network = build(space[space.size - 1], num_classes=3, image_size=32)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    costs = SpaceCosts(space, num_classes=3, image_size=32).of(space[0])
    assert set(costs.own) == set(space.file.own_measures)
    assert make_pruner(space.file) is not None
    if kind == "sampler":
        assert isinstance(make_sampler(space.file, 0), QMCSampler)
