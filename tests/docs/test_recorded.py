"""The recorded study is one that a person's first commands can read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import afi_search
from afi_search.space import Space
from afi_search.study.folder import StudyFile
from afi_search.study.repair import repair
from tests.docs.pages import ROOT

RECORDED = ROOT / "studies/reference/resnet20-digits"
KEPT = [path.parent for path in (ROOT / "studies/reference").glob("*/ledger.log")]


@pytest.mark.parametrize("recorded", KEPT, ids=lambda folder: folder.name)
def test_a_recorded_study_is_read_explained_and_reported(recorded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(recorded, tmp_path / "study"))
    study = afi_search.Study.open(folder)
    front = study.front()
    assert set(front["architecture"]) <= set(study.records()["architecture"])
    for number in front["number"]:
        assert "It is complete" in study.explain(number)
    for number in study.records()["number"]:  # older ledgers say it, too
        assert " at epoch " not in study.explain(number)
    study.report()
    for name in ("front.csv", "trials.csv"):
        assert (folder / name).read_text() == (recorded / name).read_text()


@pytest.mark.parametrize("recorded", KEPT, ids=lambda folder: folder.name)
def test_a_recorded_study_gets_its_settings_back_from_its_ledger(
    recorded: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(recorded, tmp_path / "study"))
    (folder / "study.yaml").unlink()
    list(repair(folder))
    assert StudyFile.read(folder) == StudyFile.read(recorded)


@pytest.mark.parametrize("name", ["mobilenetv2", "shufflenetv2", "resnext"])
def test_what_was_recorded_with_a_preset_is_what_the_preset_gives(name: str) -> None:
    recorded = afi_search.Study.open(ROOT / f"studies/reference/{name}-16px-cifar100").file
    ships = Space.load(ROOT / f"spaces/{name}.yaml", recorded.preset).file
    assert recorded.preset == "laptop"
    assert recorded.space.model_dump(exclude={"presets"}) == ships.model_dump(exclude={"presets"})
