from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from afi_search.engine.loggers import find_loggers
from afi_search.engine.ray_session import EngineError
from afi_search.study.study import Study
from tests.docs.pages import ROOT

RECORDED = ROOT / "studies/reference/resnet20-digits"


def test_a_logger_that_there_is_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"there is no such logger\. Did you mean 'tensorboard'"):
        find_loggers(["tensorbord"])
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(EngineError, match=r"pip install 'afi-search\[mlflow\]'"):
        find_loggers(["mlflow"])


def test_each_logger_is_made_once() -> None:
    assert len(find_loggers(["tensorboard", "tensorboard"])) == 1


class _Trial:
    """What loggers ask of Tune's trials."""

    config: ClassVar = {"architecture": "resnet20(B-r16)"}

    def __str__(self) -> str:
        return "00007"


def test_wandb_writes_a_trials_epochs_offline_and_asks_for_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    study = Study.open(Path(shutil.copytree(RECORDED, tmp_path / "study")))
    [make] = find_loggers(["wandb"])
    logger: Any = make(study)
    trial: Any = _Trial()
    logger.on_trial_start(0, [], trial)
    logger.on_trial_start(0, [], trial)
    for epoch in (1, 2):
        result = {
            "accuracy": 0.25 * epoch,
            "accuracies": [0.25] * epoch,
            "training_iteration": epoch,
        }
        logger.on_trial_result(epoch, [], trial, result)
    logger.on_trial_complete(2, [], trial)
    wandb.teardown()  # its service writes to the end
    [run] = (study.folder / "wandb").glob("offline-run-*/run-*.wandb")
    written = run.read_bytes()
    for text in (b"00007", b"resnet20(B-r16)", b"accuracy", b"0.25", b"0.5"):
        assert text in written
    assert b"accuracies" not in written


@pytest.mark.parametrize("name", ["plain", "what? #1 100%20"])
def test_mlflow_writes_into_the_studys_folder_and_nowhere_else(tmp_path: Path, name: str) -> None:
    pytest.importorskip("mlflow")
    study = Study.open(Path(shutil.copytree(RECORDED, tmp_path / name / "study")))
    [make] = find_loggers(["mlflow"])
    logger: Any = make(study)
    logger.setup()
    logger.on_trial_start(0, [], trial := _Trial())
    logger.on_trial_result(1, [], trial, {"accuracy": 0.25, "training_iteration": 1})
    logger.on_trial_complete(1, [], trial)

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert b"accuracy" in (study.folder / "mlflow.db").read_bytes()
