"""The main job on a real Ray cluster of two machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from afi_search.study import Ledger
from afi_search.study.checkpoint_location import location_of, trial_location
from afi_search.study.folder import StudyFile
from afi_search.train import load
from tests.cli.test_run import Driver
from tests.engine.ray_cluster import SECOND_ADDRESS, Cluster, two_machines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SPACE = """
backbone: resnet20
stages:
  all: {width: [off, base, B], ratio: [4], scorer: [block, stage]}
data: {name: digits, train_subset: 128, validation_subset: 40}
recipe: {epochs: 30, batch_size: 32, lr: 0.05}
search: {trials: 3, baselines: true}
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with two_machines() as cluster:
        yield cluster


@pytest.fixture
def folder(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    if cluster.unshared is not None:
        monkeypatch.setenv("TMPDIR", str(cluster.unshared))
    return tmp_path


def history(study: Path, number: int) -> list[dict[str, Any]]:
    """What a trial's newest checkpoint tells of its epochs, with the seconds each took."""
    place = location_of(study, StudyFile.read(study).checkpoints)
    state = load(trial_location(place, number))
    return [] if state is None else list(state["history"])


def test_a_lost_machine_costs_no_epoch_that_was_checkpointed(
    folder: Path, cluster: Cluster
) -> None:
    """Where the system allows it, the machines share no file but those at the URL."""
    study = folder / "studies" / "resnet20-digits"
    shared = (folder / "shared").as_uri()
    driver = Driver(folder, "tiny.yaml", "--address", cluster.address, "--checkpoints", shared)
    for number in (0, 1):
        driver.wait_for(rf"trial {number} .*epoch [3-9]/30")
    assert cluster.trial_workers(), "no trial runs on the second machine"
    cluster.lose_second()
    before = {number: history(study, number) for number in (0, 1)}

    assert driver.end(400) == 0, driver.output
    records = Ledger.open(study).records()
    assert list(records["state"]) == ["complete"] * 3
    assert records["architecture"].is_unique
    for number, known in before.items():
        assert len(known) >= 3
        assert history(study, number)[: len(known)] == known, "an epoch was trained again"
    assert not (study / "checkpoints").exists()


def test_checkpoints_that_a_machine_cannot_see_are_refused(folder: Path, cluster: Cluster) -> None:
    if cluster.unshared is None:
        pytest.skip("needs the right to mount, to hide a folder from a machine")
    command = ("tiny.yaml", "--address", cluster.address, "--checkpoints")
    driver = Driver(folder, *command, str(cluster.unshared / "here"))

    assert driver.end() == 2, driver.output
    assert f"the machine {SECOND_ADDRESS} does not see the checkpoints" in driver.output
    assert "Traceback" not in driver.output
    assert Ledger.open(folder / "studies" / "resnet20-digits").records().empty
