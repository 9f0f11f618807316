"""The recorded study is one that a person's first commands can read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import afi_search
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
    study.report()
    for name in ("front.csv", "trials.csv"):
        assert (folder / name).read_text() == (recorded / name).read_text()
