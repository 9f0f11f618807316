"""What Tune makes of workers that Ray ends itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.exceptions import OutOfMemoryError

from afi_search.engine.ray_session import EngineError
from afi_search.engine.tune import run_workers
from tests.search.studies import conductor_for, space_file

WORDS = "2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 1"


def ended_by(cause: Exception) -> Any:
    def run(*arguments: Any, **options: Any) -> None:
        raise RuntimeError(f"Caught unexpected exception: {cause}") from cause

    return run


def test_workers_that_ray_ends_for_their_memory_end_the_run_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, conductor = conductor_for(space_file(), tmp_path)
    conductor.next()
    monkeypatch.setattr(tune, "run", ended_by(OutOfMemoryError(WORDS)))
    with pytest.raises(EngineError, match=r"running low on memory\. Nothing is lost"):
        run_workers(conductor, object, 1)
    assert not conductor.running
    monkeypatch.setattr(tune, "run", ended_by(ValueError("ours")))
    with pytest.raises(RuntimeError, match="ours"):
        run_workers(conductor, object, 1)
