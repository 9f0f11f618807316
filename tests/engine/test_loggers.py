from __future__ import annotations

import sys

import pytest

from afi_search.engine.loggers import make_loggers
from afi_search.engine.ray_session import EngineError
from afi_search.study.study import Study
from tests.docs.pages import ROOT

RECORDED = ROOT / "studies/reference/resnet20-digits"


def test_a_logger_that_there_is_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.open(RECORDED)
    with pytest.raises(EngineError, match=r"there is no such logger\. Did you mean 'tensorboard'"):
        make_loggers(["tensorbord"], study)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(EngineError, match=r"pip install 'afi-search\[mlflow\]'"):
        make_loggers(["mlflow"], study)


def test_each_logger_is_made_once() -> None:
    assert len(make_loggers(["tensorboard", "tensorboard"], Study.open(RECORDED))) == 1
