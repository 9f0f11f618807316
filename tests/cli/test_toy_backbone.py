"""A backbone from outside the package is searched like any other, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from afi_search.space import Space, SpaceFileError
from afi_search.study.info import read_study

SPACE = """
imports: [toynet]
backbone: toynet
stages:
  all: {width: [off, base, B], ratio: [4]}
data: {name: digits, train_subset: 64, validation_subset: 40}
recipe: {epochs: 2, batch_size: 32, lr: 0.05}
search: {trials: 3, concurrency: 1, sampler: random, first: [toynet]}
"""


def test_a_third_partys_backbone_is_searched(tmp_path: Path, toynet: Path) -> None:
    (tmp_path / "toy.yaml").write_text(SPACE)

    search = subprocess.run(
        [sys.executable, "-m", "afi_search.run", "toy.yaml"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(toynet), *sys.path])},
        capture_output=True,
        text=True,
        timeout=250,
    )

    assert search.returncode == 0, search.stdout + search.stderr
    records, info = read_study(tmp_path / "studies" / "toynet-digits")
    assert list(records["state"]) == ["complete"] * 3
    assert set(records["backbone"]) == {"toynet"} == set(info.backbones)
    assert list(records["epochs"]) == [2, 2, 2]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("toynett", "imports.0: 'toynett' cannot be imported (ModuleNotFoundError: "),
        ("broken_toy", "imports.0: 'broken_toy' cannot be imported (ZeroDivisionError: "),
        ("toy net", "imports.0: 'toy net' "),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str
) -> None:
    (tmp_path / "broken_toy.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "toy.yaml"
    path.write_text(SPACE.replace("[toynet]", f"[{module}]", 1))

    with pytest.raises(SpaceFileError) as error:
        Space.load(path)

    assert str(error.value).startswith(f"{path}:2: {said}")
