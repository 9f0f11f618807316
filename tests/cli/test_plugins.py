"""What a user's module registers is searched like what comes along, in processes of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from afi_search.space import Space, SpaceFileError
from afi_search.study.folder import StudyFile
from afi_search.study.study import Study

SPACE = """
imports: [everything]
backbone: toynet
stages:
  all: {width: [off, B], ratio: [4], attention: [none, gate]}
data: {name: shades}
objectives: [accuracy, joules, gates, macs]
constraints: {joules: 5}
recipe: {epochs: 2, batch_size: 24, lr: 0.05}
search:
  trials: 2
  concurrency: 1
  sampler: last
  pruner: odd
  baselines: false
  first: [toynet]
"""
COMMANDS = {
    "afi-search run": [str(Path(sys.executable).parent / "afi-search"), "run"],
    "python -m afi_search.run": [sys.executable, "-m", "afi_search.run"],
}


@pytest.fixture
def space(tmp_path: Path, third_party: Path) -> Path:
    """A space file beside the modules it imports, in a folder below the one that is worked in."""
    shutil.copytree(third_party, tmp_path / "spaces")
    path = tmp_path / "spaces" / "toy.yaml"
    path.write_text(SPACE)
    return path


@pytest.mark.parametrize(
    "command", ["afi-search run", pytest.param("python -m afi_search.run", marks=pytest.mark.slow)]
)
def test_one_of_each_kind_is_searched(tmp_path: Path, space: Path, command: str) -> None:
    search = subprocess.run(
        [*COMMANDS[command], "spaces/toy.yaml"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=250,
    )

    assert search.returncode == 0, search.stdout + search.stderr
    study = tmp_path / "studies" / "toynet-shades"
    opened = Study.open(study, imports=True)
    records, info = opened.records(), opened.info
    assert (info.backbones, info.dataset, info.image_size) == (("toynet",), "shades", 16)
    assert list(records["architecture"]) == ["toynet", "toynet(B-r4-gate)"]
    assert list(records["origin"]) == ["first", "last"]
    assert list(records["state"]) == ["complete", "pruned"]
    assert list(records["epochs"]) == [2, 1]
    assert list(records["reason"]) == ["", ""]
    assert list(records["gates"]) == [0, 4]
    joules = 1e-6 * records["macs"] + 1e-4 * records["params"]
    assert list(records["joules"]) == pytest.approx(list(joules))
    assert "energy of an image, J" in (study / "front.html").read_text()
    assert ",joules,gates" in (study / "front.csv").read_text()


@pytest.mark.parametrize(
    ("key", "asked", "said"),
    [
        ("backbone: toynet", "backbone: toynett", "Did you mean 'toynet'? There are: resnet20, "),
        ("name: shades", "name: shade", "unknown data set 'shade'. Did you mean 'shades'?"),
        (
            "none, gate",
            "gates",
            "attention.0: unknown add-on attention 'gates'. Did you mean 'gate'?",
        ),
        (
            "sampler: last",
            "sampler: lst",
            "unknown sampler 'lst'. Did you mean 'last'? There are: known-cost, ",
        ),
        ("gates, macs", "gattes", "unknown objective 'gattes'. Did you mean 'gates'? There are: "),
        ("joules: 5", "jouls: 5", "constraints.jouls: unknown key. Did you mean 'joules'?"),
        ("joules: 5", "joules: .inf", "constraints.joules: inf must be a finite number"),
        ("pruner: odd", "pruner: od", "unknown pruner 'od'. Did you mean 'odd'? There are: none, "),
    ],
)
def test_what_is_registered_is_listed_where_a_name_is_wrong(
    space: Path, key: str, asked: str, said: str
) -> None:
    assert key in SPACE
    space.write_text(SPACE.replace(key, asked))
    with pytest.raises(SpaceFileError) as error:
        Space.load(space)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("toynett", "imports.0: 'toynett' cannot be imported (ModuleNotFoundError: "),
        ("broken_toy", "imports.0: 'broken_toy' cannot be imported (ZeroDivisionError: "),
        ("toy net", "imports.0: 'toy net' "),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_place(
    space: Path, module: str, said: str
) -> None:
    (space.parent / "broken_toy.py").write_text("1 / 0")
    space.write_text(SPACE.replace("[everything]", f"[{module}]", 1))

    with pytest.raises(SpaceFileError) as error:
        Space.load(space)

    assert f"{space}:2: {said}" in str(error.value)


def test_modules_can_lie_in_another_folder(space: Path) -> None:
    other = space.parent / "below" / "toy.yaml"
    other.parent.mkdir()
    other.write_text(f"imports_from: ..\n{SPACE}")
    path = list(sys.path)

    file = Space.load(other).file

    assert file.backbone == "toynet"
    assert Path(file.imports_from or "").samefile(space.parent)
    assert sys.path == path


def test_another_module_of_that_name_is_not_taken_for_it(space: Path) -> None:
    Space.load(space)
    other = space.parent / "other"
    other.mkdir()
    for file in (space, space.with_name("everything.py")):
        shutil.copy(file, other)

    with pytest.raises(SpaceFileError, match="another module of that name has been, from"):
        Space.load(other / space.name)


def test_reading_a_strangers_study_runs_none_of_its_modules_unasked(
    tmp_path: Path, space: Path
) -> None:
    """Nor does it where the names that they register are needed: that is told."""
    file = StudyFile("toy", "", "", Space.load(space).file, {})
    Study.begin(tmp_path / "study", file).__enter__()
    (space.parent / "everything.py").write_text(
        f"{(space.parent / 'everything.py').read_text()}\nprint('THE STRANGER RUNS')\n"
    )
    for command in ("front", "study prune"):
        for asked in ([], ["--imports"]):
            done = subprocess.run(
                [sys.executable, "-m", "afi_search", *command.split(), "study", *asked],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                capture_output=True,
                text=True,
                timeout=250,
            )
            assert ("THE STRANGER RUNS" in done.stdout) == bool(asked)
            assert done.returncode == (0 if asked else 2), done.stderr
            assert ("--imports runs them" in done.stderr) == (not asked)
            assert "Traceback" not in done.stderr
