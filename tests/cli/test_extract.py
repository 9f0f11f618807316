from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from afi_search.cli.main import app
from afi_search.space import SpaceFile
from afi_search.study.folder import StudyFile
from afi_search.study.study import Study


def test_a_study_without_a_supernet_is_told_how_to_train_one(tmp_path: Path) -> None:
    file = SpaceFile.model_validate({"architectures": ["resnet20"], "data": {"name": "digits"}})
    with Study.begin(tmp_path / "study", StudyFile("study", "", "", file, {})):
        pass
    result = CliRunner().invoke(app, ["extract", str(tmp_path / "study"), "resnet20"])
    assert result.exit_code == 2
    assert "has no supernet" in result.output and "strategy: supernet" in result.output
