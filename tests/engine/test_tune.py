"""What Tune makes of workers that Ray ends itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.exceptions import OutOfMemoryError

from afi_search.engine.ray_session import EngineError
from afi_search.engine.tune import run_workers
from afi_search.search.stopping import StopRequest
from tests.search.studies import conductor_for, play, space_file

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


def test_generations_that_no_ledger_has_by_itself_break_off_in_words(tmp_path: Path) -> None:
    search = {"sampler": "nsga2", "pruner": {"name": "none"}, "trials": 52}
    play(conductor_for(space_file(search=search, recipe={"epochs": 1}), tmp_path)[1])
    path = tmp_path / "ledger.log"
    text, absurd = path.read_text(), '"NSGAIISampler:generation":9223372036854775807'
    path.write_text(re.sub(r'"NSGAIISampler:generation":\d+', absurd, text))

    stop = StopRequest()
    more = space_file(search={**search, "trials": 60}, recipe={"epochs": 1})
    with stop.if_the_ledger_fails():
        play(conductor_for(more, tmp_path)[1])
    assert "generations that no sampler can go through" in stop.reason
