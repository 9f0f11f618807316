"""A search that goes by a supernet: trained in a Ray worker, stopped, resumed, scored, audited."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import afi_search as afi
from afi_search.model.from_supernet import trained_supernet
from afi_search.search.explain import explain
from tests.driver import Driver

SPACE = """
backbone: resnet20
stages: {all: {choice: [off, base-r4, B-r4]}}
data: {name: digits, image_size: 16, train_subset: 96, validation_subset: 40}
recipe: {epochs: 2, batch_size: 32, lr: 0.05, precision: fp32}
search:
  trials: 13
  concurrency: 2
  baselines: false
  strategy: supernet
  supernet: {sampling: single-path, epochs: 4}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_supernet_is_stopped_and_resumed_and_its_best_are_trained(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    arguments = ("space.yaml", "--name", "study", "--preset", "none")
    first = Driver(tmp_path, *arguments)
    first.wait_for("epoch 1/4")
    first.process.send_signal(signal.SIGINT)
    assert first.end() == 130, first.output

    second = Driver(tmp_path, *arguments)
    assert second.end(600) == 0, second.output
    assert "epoch 1/4" not in second.output.split("epoch 2/4")[1]
    assert "27 of 27 architectures have an inherited accuracy." in second.output
    assert "Kendall's tau with the final accuracies" in second.output

    study = afi.Study.open(tmp_path / "studies" / "study")
    records, scores = study.records(), study.ledger.scores()
    assert set(records["origin"][:12]) == {"inherited"} and records["full"].all()
    assert len(scores) == 27 and scores["synflow"].notna().sum() == 13
    assert len(study.front()) <= 13
    assert "inherit from the supernet" in "\n".join(explain(study.ledger.trial(0)))
    assert "What scores are worth" in study.report()[-1].read_text(encoding="utf-8")
    state = trained_supernet(study).state_dict()

    third = Driver(tmp_path, *arguments)
    assert third.end(600) == 0, third.output
    assert "nothing left to train" in third.output
    again = afi.Study.open(study.folder)
    assert again.ledger.scores().equals(scores)
    assert all((t == state[name]).all() for name, t in trained_supernet(again).state_dict().items())

    study.remove()
    assert not study.folder.exists()
