"""A researcher's session in Python, without the command line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from optuna.trial import FrozenTrial

import afi_search as afi
from afi_search.errors import UserError

SPACE = """
backbone: resnet20
stages:
  all: {width: [off, base], ratio: [4]}
data: {name: digits, train_subset: 64, validation_subset: 40}
recipe: {epochs: 2, batch_size: 32, lr: 0.05, precision: fp32}
search: {trials: 3, concurrency: 1, sampler: random, pruner: {name: none}}
confirm:
  seeds: 2
  baselines: false
  train_subset: 64
  recipe: {epochs: 1, batch_size: 32, lr: 0.05, precision: fp32}
"""


class Counting(afi.Listener):
    """Counts what it hears."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()
        self.states: Counter[str] = Counter()

    def space_counted(self, size: int, feasible: int) -> None:
        self.heard["space"] += 1
        assert size == feasible == 8

    def study_opened(self, study: object) -> None:
        self.heard["opened"] += 1

    def engine_started(self, dashboard: str, concurrency: int, threads: int, gpus: float) -> None:
        self.heard["engine"] += 1
        assert "http://" in dashboard
        assert concurrency == 1

    def trial_changed(self, trial: FrozenTrial) -> None:
        self.states[trial.state.name] += 1

    def nothing_left(self) -> None:
        self.heard["nothing left"] += 1

    def run_ended(self) -> None:
        self.heard["ended"] += 1


@pytest.mark.timeout(1200)
def test_a_session_from_the_space_to_a_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    space = afi.Space.load(path)
    assert space.size == 8

    listener = Counting()
    study = afi.run_study(path, studies=tmp_path / "studies", listener=listener)
    assert study.folder == tmp_path / "studies" / "resnet20-digits"
    assert listener.heard == {"space": 1, "opened": 1, "engine": 1, "ended": 1}
    # Of each trial: begun, one epoch of two, complete.
    assert listener.states == {"RUNNING": 2 * 3, "COMPLETE": 3}

    records = study.records()
    assert list(records["state"]) == ["complete"] * 3
    assert set(study.front()["number"]) <= set(records["number"])
    assert "3 complete" in repr(study)
    assert "resnet20(base-r4)" in study.explain(1)
    with pytest.raises(UserError, match="there is no trial 7; there are 0 to 2"):
        study.explain(7)

    again = Counting()
    same = afi.run_study(path, studies=tmp_path / "studies", listener=again)
    assert again.heard == {"space": 1, "opened": 1, "nothing left": 1, "ended": 1}
    assert same.records().equals(records)

    study.add_trials(2)
    assert len(study.records()) == 5
    assert study.records()[:3].equals(records)
    assert len(afi.Study.open(study.folder).records()) == 5

    assert (study.folder / "report.html") in study.report()
    table = study.confirm(top=1)
    assert list(table["seeds"]) == [2]
    assert 0 < table["test"].item() < 1
    assert study.confirmation is not None
    assert len(study.confirmation.records()) == 2

    best = int(study.front()["number"].iloc[-1])
    study.model(best).save(tmp_path / "model")
    model = afi.load(tmp_path / "model")
    assert model.architecture.text == study.records()["architecture"][best]

    assert study.prune() >= 0
    study.remove()
    assert not study.folder.exists()
    assert capfd.readouterr().out == ""


def test_an_architectures_text_is_enough() -> None:
    text = "resnet20(base-r4, off, B-r16-se)"
    architecture = afi.Architecture.parse(text)
    sizes = {"num_classes": 10, "image_size": 32}
    assert afi.measure(text, **sizes) == afi.measure(architecture, **sizes)
    assert afi.build(text, **sizes)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(UserError, match="is not a width"):
        afi.measure("resnet20(bse-r4)", **sizes)


def test_every_public_name_is_there() -> None:
    assert {name: getattr(afi, name) for name in afi.__all__}
