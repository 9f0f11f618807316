"""The ledger under fire: whatever is killed, and whenever, the same command goes on.

Real processes on the digits, minutes long: pytest -m slow tests/test_soak.py
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from afi_search.study import Ledger
from afi_search.study.folder import StudyFile
from afi_search.study.journal import StorageError
from afi_search.study.storage import only_client
from afi_search.train import load
from tests.driver import SPACE, Driver
from tests.study import postgresql

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = 20
WORKER = "ResourceTrainable"
RAYLET, HEAD = "raylet/raylet", "gcs_server"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    yield tmp_path
    bury(tmp_path)


def bury(folder: Path) -> None:
    """Kill what dead drivers left running: Ray's processes end by themselves only after a while."""
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) or str(folder) in " ".join(process.cmdline()):
                process.kill()
        except psutil.Error:
            continue


def finish(folder: Path) -> pd.DataFrame:
    """Give the command again until it comes to its end; return the study's trials."""
    driver = Driver(folder, "tiny.yaml")
    assert driver.end(400) == 0, driver.output
    assert "Traceback" not in driver.output
    return study_records(folder)


def study_records(folder: Path) -> pd.DataFrame:
    return Ledger.open(folder / "studies" / "resnet20-digits").records()


def histories(folder: Path) -> dict[str, list[dict[str, object]]]:
    """The epochs that each trial's checkpoint holds."""
    checkpoints = (folder / "studies" / "resnet20-digits" / "checkpoints").glob("*")
    states = {path.name: load(str(path)) for path in checkpoints}
    return {name: state["history"] for name, state in states.items() if state is not None}


def check_whole(records: pd.DataFrame, trials: int = 5) -> None:
    assert len(records) == trials
    assert set(records["state"]) <= {"complete", "pruned"}
    assert records["architecture"].is_unique
    assert records.loc[0, "full"]


def check_kept(before: dict[str, Any], after: dict[str, Any]) -> None:
    """No checkpointed epoch was trained again, of trials whose checkpoints are still of use."""
    for name in before.keys() & after.keys():
        assert after[name][: len(before[name])] == before[name]


def results(records: pd.DataFrame) -> list[tuple[object, ...]]:
    columns = ["number", "state", "architecture", "seed", "origin", "curve"]
    return list(records[columns].itertuples(index=False, name=None))


def test_a_driver_killed_at_random_moments_ends_with_the_trials_of_one_that_lived(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    space = SPACE.replace("trials: 5", "trials: 12")
    calm, fire = tmp_path_factory.mktemp("calm"), tmp_path_factory.mktemp("fire")
    for folder in (calm, fire):
        (folder / "tiny.yaml").write_text(space)
    expected = finish(calm)
    check_whole(expected, trials=12)

    moments = random.Random(20)
    kills, known = 0, histories(fire) if (fire / "studies").exists() else {}
    when: Counter[str] = Counter()
    while kills < KILLS:
        driver = Driver(fire, "tiny.yaml")
        if kills % 4:  # among the trials, otherwise before Ray is there or while it starts
            epochs = moments.randint(0, 2)
            driver.wait_for(rf"(?s)Ray dashboard(.*?epoch [1-4]/4){{{epochs}}}|front\.csv", 300)
            time.sleep(moments.uniform(0, 1))
        else:
            time.sleep(moments.uniform(0, 6))
        if driver.process.poll() is not None:
            assert driver.process.returncode == 0, driver.output
            break
        driver.process.send_signal(signal.SIGKILL)
        driver.end()
        kills += 1
        when["among trials" if "epoch" in driver.output else "before them"] += 1
        after = histories(fire) if (fire / "studies").exists() else {}
        check_kept(known, after)
        known = after
        bury(fire)
    records = finish(fire)

    print(f"{kills} kills: {dict(when)}")
    assert kills >= KILLS // 2 and when["among trials"] >= 5
    check_whole(records, trials=12)
    assert results(records) == results(expected)
    check_kept(known, histories(fire))


@pytest.mark.parametrize("victim", [WORKER, RAYLET, HEAD])
def test_whatever_dies_the_same_command_goes_on(folder: Path, victim: str) -> None:
    driver = Driver(folder, "tiny.yaml")
    driver.wait_for(r"trial 1 .*epoch 2/4")
    known = histories(folder)
    victims = driver.descendants(victim)
    assert victims
    for process in victims:
        process.kill()
    code = driver.end(400)
    assert "Traceback" not in driver.output, driver.output
    assert code == 0 or "the same command resumes" in driver.output, driver.output
    assert "failed" not in set(study_records(folder)["state"])
    bury(folder)

    check_whole(finish(folder))
    for name, history in known.items():
        assert histories(folder)[name][: len(history)] == history


def test_a_checkpoint_cut_short_costs_one_epoch(folder: Path) -> None:
    driver = Driver(folder, "tiny.yaml")
    driver.wait_for(r"trial 0 .*epoch 3/4")
    driver.process.kill()
    driver.end()
    bury(folder)
    newest = max((folder / "studies" / "resnet20-digits" / "checkpoints" / "00000").glob("*.pt"))
    epoch = int(newest.stem.split("-")[1])
    kept = histories(folder)["00000"][: epoch - 1]
    newest.write_bytes(newest.read_bytes()[:1000])

    check_whole(finish(folder))
    assert histories(folder)["00000"][: epoch - 1] == kept


def test_a_loss_that_is_no_number_fails_its_trials_and_nothing_else(folder: Path) -> None:
    pruner = next(line for line in SPACE.splitlines() if "pruner" in line)
    space = SPACE.replace("lr: 0.05", "lr: 1.0e+9").replace(pruner, "  pruner: {name: none}")
    (folder / "tiny.yaml").write_text(space)
    driver = Driver(folder, "tiny.yaml")

    assert driver.end(400) == 2, driver.output
    records = study_records(folder)
    assert list(records["state"]) == ["failed"] * 5
    assert records["reason"].str.contains("loss became").all()


def test_a_full_disk_stops_the_study_and_an_empty_one_lets_it_go_on(folder: Path) -> None:
    if os.getuid() or not shutil.which("mount"):
        pytest.skip("needs root and mount, to make a small disk")
    studies = folder / "studies"
    studies.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", studies]).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        driver = Driver(folder, "tiny.yaml")
        code = driver.end(400)
        assert code == 2, driver.output
        assert "Traceback" not in driver.output
        assert "the same command resumes" in driver.output
        assert "running" not in set(study_records(folder)["state"])
        assert "failed" not in set(study_records(folder)["state"])
        subprocess.run(["mount", "-o", "remount,size=200m", studies], check=True)
        check_whole(finish(folder))
    finally:
        bury(folder)
        subprocess.run(["umount", "-l", studies], check=True)


def test_a_database_that_restarts_is_waited_for_and_keeps_others_out(folder: Path) -> None:
    with postgresql.server() as server:
        driver = Driver(folder, "tiny.yaml", "--storage", server.url)
        driver.wait_for(r"trial 0 .*epoch 2/4")
        server.stop()
        driver.wait_for(r"The database is away")
        server.start()
        driver.wait_for(r"The database is there again")
        with pytest.raises(StorageError, match="another driver"):
            study = StudyFile.read(folder / "studies" / "resnet20-digits")
            with only_client(server.url, study.ledger):
                pass
        assert driver.end(400) == 0, driver.output
        assert "Traceback" not in driver.output
        assert (folder / "studies" / "resnet20-digits" / "front.html").exists()
        check_whole(study_records(folder))
