"""What the driver and its workers tell Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from afi_search.engine import metrics
from afi_search.engine.metrics import METRICS, Sample, StudyMetrics, exported, worker_samples
from afi_search.study.info import StudyInfo
from afi_search.study.pareto import front, hypervolume
from afi_search.study.reference import measure_references, reference_point
from afi_search.train.trainer import EpochResult
from tests.driver import SPACE, Driver
from tests.search.studies import conductor_for, play, space_file

INFO = StudyInfo("study", ("resnet20",), "digits", 10, 32, epochs=9, preset="", device="", seed=0)
REFERENCE = reference_point(measure_references(INFO), INFO)
LABELS = ("study", "trial", "state")


def values(samples: list[Sample]) -> dict[tuple[str, ...], float]:
    return {(sample.name, *(value for _, value in sample.tags)): sample.value for sample in samples}


def test_a_study_stands_as_its_report_says(tmp_path: Path) -> None:
    study_metrics = StudyMetrics([], ["accuracy", "macs"], REFERENCE)
    ledger, conductor = conductor_for(space_file(), tmp_path, on_change=study_metrics.changed)
    play(conductor)

    records = ledger.records()
    told = values(study_metrics.samples())
    for state in ("running", "waiting", "complete", "pruned", "failed"):
        assert told["afi_trials", state] == (records["state"] == state).sum()
    assert told["afi_best_accuracy",] == records.loc[records["full"], "accuracy"].max()
    assert told["afi_front_size",] == len(front(records))
    share = hypervolume(records, REFERENCE) / ((1 - REFERENCE[0]) * REFERENCE[1])
    assert told["afi_hypervolume",] == pytest.approx(share)
    assert told == values(StudyMetrics(ledger.trials(), ["accuracy", "macs"], REFERENCE).samples())


def test_before_the_first_full_trial_there_is_no_best(tmp_path: Path) -> None:
    study_metrics = StudyMetrics([], ["accuracy", "macs"], REFERENCE)
    _, conductor = conductor_for(space_file(), tmp_path, on_change=study_metrics.changed)
    assignment = conductor.next()
    assert assignment is not None
    conductor.report(assignment.number, [0.3], seconds=1.0)

    told = values(study_metrics.samples())
    assert told["afi_trials", "running"] == 1
    assert told["afi_hypervolume",] == told["afi_front_size",] == 0
    assert ("afi_best_accuracy",) not in told


def test_a_pace_is_that_of_the_trial_at_hand() -> None:
    epoch = EpochResult(1, accuracy=0.5, loss=1.0, seconds=2.5, images_per_second=400.0)
    assert values(worker_samples(3, [epoch])) == {
        ("afi_gpu_memory_bytes", "3"): 0.0,
        ("afi_images_per_second", "3"): 400.0,
        ("afi_epoch_seconds", "3"): 2.5,
    }
    assert values(worker_samples(4, [])) == {("afi_gpu_memory_bytes", "4"): 0.0}


def test_gauges_are_set_again_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, float, dict[str, str]]] = []
    enough = threading.Event()

    class Ears:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            self._name, self._tag_keys = name, tag_keys

        def set(self, value: float, tags: dict[str, str]) -> None:
            assert tuple(tags) == self._tag_keys
            heard.append((self._name, value, tags))
            if len(heard) > 2:
                enough.set()

    monkeypatch.setattr(metrics, "Gauge", Ears)
    monkeypatch.setattr(metrics, "_SET_EVERY_SECONDS", 0.01)
    with exported("mine", lambda: [Sample("afi_trials", 1, (("state", "running"),))]):
        assert enough.wait(10)
    set_in_all = len(heard)
    time.sleep(0.05)

    assert len(heard) == set_in_all
    assert heard[0] == ("afi_trials", 1, {"study": "mine", "state": "running"})
    assert heard[0] == heard[1] == heard[2]


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of Ray's own for one run, in which it soon says where its metrics are."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # the paths of its sockets must be short
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_real_run_shows_every_documented_name(ray_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE.replace("trials: 5", "trials: 100"))
    driver = Driver(tmp_path, "tiny.yaml")
    driver.wait_for(r"trial 3 ")
    scraped: dict[str, dict[str, str]] = {}
    deadline = time.monotonic() + 100
    while set(scraped) != set(METRICS) and time.monotonic() < deadline:
        assert driver.process.poll() is None, driver.output
        scraped |= scrape(ray_folder)
        time.sleep(0.5)
    driver.process.send_signal(signal.SIGINT)

    assert driver.end() == 130, driver.output
    assert set(scraped) == set(METRICS)
    for name, metric in METRICS.items():
        assert scraped[name]["study"] == "resnet20-digits"
        assert {key for key in LABELS if key in scraped[name]} == {"study", *metric.tags}


def scrape(ray_folder: Path) -> dict[str, dict[str, str]]:
    """Return the labels of our gauges, without Ray's prefix, that the nodes show right now."""
    found = {}
    for file in ray_folder.glob("**/prom_metrics_service_discovery.json"):
        for target in json.loads(file.read_text())[0]["targets"]:
            try:
                text = urlopen(f"http://{target}/metrics", timeout=10).read().decode()
            except URLError:
                continue
            for name, labels in re.findall(r"^ray_(afi_\w+)\{(.*)\} ", text, re.MULTILINE):
                found[name] = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    return found
