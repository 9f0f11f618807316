"""Kills at random moments, of every process that a search has, twenty in one study."""

from __future__ import annotations

import random
import time
from pathlib import Path

import psutil
import pytest

from afi_search.search import Ledger
from afi_search.train import load
from tests.test_run import SPACE, Driver

KILLS = 20
VICTIMS = {
    "driver": "afi_search.run",
    "worker": "ResourceTrainable",
    "raylet": "raylet/raylet",
    "head": "gcs_server",
}


def processes(driver: Driver, mark: str) -> list[psutil.Process]:
    """Return the driver's own process or those below it that bear the mark."""
    own = psutil.Process(driver.process.pid)
    if mark == VICTIMS["driver"]:
        return [own]
    return [child for child in own.children(recursive=True) if mark in " ".join(child.cmdline())]


def kill_all(driver: Driver) -> None:
    """Kill the driver and wait; what it started ends by itself or is killed too."""
    children = psutil.Process(driver.process.pid).children(recursive=True)
    driver.process.kill()
    driver.process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    space = SPACE.replace("epochs: 4", "epochs: 6").replace("trials: 5", "trials: 8")
    (tmp_path / "tiny.yaml").write_text(space)
    whole = Driver(tmp_path, "tiny.yaml", "--name", "whole")
    assert whole.end(timeout=600) == 0, whole.output

    dice = random.Random(5)
    study = tmp_path / "studies" / "soak"
    command = ("tiny.yaml", "--name", "soak")
    kills = dict.fromkeys(VICTIMS, 0)
    known: dict[str, list[dict[str, float]]] = {}
    driver = Driver(tmp_path, *command)
    while sum(kills.values()) < KILLS:
        victim = dice.choice(list(VICTIMS))
        time.sleep(dice.uniform(0.5, 20.0))
        if driver.process.poll() is not None:
            assert driver.process.returncode != 2, driver.output
            driver = Driver(tmp_path, *command)
            continue
        for process in processes(driver, VICTIMS[victim]):
            process.kill()
            kills[victim] += 1
        if victim != "worker":
            try:
                driver.process.wait(timeout=30)
            except Exception:
                kill_all(driver)
            for folder in sorted((study / "checkpoints").glob("*")):
                history = (load(str(folder)) or {"history": []})["history"]
                before = known.get(folder.name, [])
                assert history[: len(before)] == before, f"{folder.name} lost an epoch"
                known[folder.name] = history
            driver = Driver(tmp_path, *command)
    driver.end(timeout=600)
    last = Driver(tmp_path, *command)

    assert last.end(timeout=600) == 0, last.output
    records = Ledger.open(study).records()
    expected = Ledger.open(tmp_path / "studies" / "whole").records()
    same = ["number", "state", "architecture", "seed", "epochs", "full", "accuracy", "curve"]
    assert records[same].to_dict("records") == expected[same].to_dict("records")
    assert all(count > 0 for count in kills.values()), kills
