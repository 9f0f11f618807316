"""A researcher's session in Python, without the command line."""

from __future__ import annotations

import gc
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial

import afi_search as afi
from afi_search.engine.ray_session import RaySession
from afi_search.errors import UserError
from afi_search.train import EpochResult

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
        self.epochs: dict[int, float] = {}

    def space_counted(self, size: int, feasible: int | None) -> None:
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

    def trial_progressed(self, number: int, epochs: float, images_per_second: float) -> None:
        self.epochs[number] = epochs

    def run_ended(self) -> None:
        self.heard["ended"] += 1


@contextmanager
def one_ray() -> Iterator[None]:
    """Start Ray once for all runs in the context: that takes as long as a run of few trials."""
    begin, end = RaySession.begin, RaySession.__exit__
    begun: list[RaySession] = []

    def begin_once(session: RaySession) -> None:
        if not begun:
            begun.append(session)
            begin(session)
        session._dashboard = begun[0]._dashboard

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RaySession, "begin", begin_once)
        patch.setattr(RaySession, "__exit__", lambda *raised: None)
        try:
            yield
        finally:
            end(begun[0])


@pytest.mark.timeout(1200)
def test_a_session_from_the_space_to_a_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    space = afi.Space.load(path)
    assert space.size == 8

    listener = Counting()
    study = afi.run_study(
        path,
        studies=tmp_path / "studies",
        settings={"search.seed": 7},
        loggers=["tensorboard"],
        listener=listener,
    )
    assert study.folder == tmp_path / "studies" / "resnet20-digits"
    assert listener.heard == {"space": 1, "opened": 1, "engine": 1, "ended": 1}
    # Of each trial: begun, one epoch of two, complete.
    assert listener.states == {"RUNNING": 2 * 3, "COMPLETE": 3}
    assert gc.get_freeze_count() == 0  # Triton tells at the end of what was not freed

    records = study.records()
    assert list(records["state"]) == ["complete"] * 3
    assert set(records["seed"]) == {7} == {afi.Study.open(study.folder).file.space.search.seed}
    assert all(0 <= epochs <= 2 for epochs in listener.epochs.values())
    assert set(listener.epochs) <= set(records["number"])
    assert len(list(study.folder.glob("tensorboard/*/events.*"))) == 3
    assert set(study.front()["number"]) <= set(records["number"])
    assert "3 complete" in repr(study)
    assert "resnet20(base-r4)" in study.explain(1)
    with pytest.raises(UserError, match="there is no trial 7; there are 0 to 2"):
        study.explain(7)

    again = Counting()
    same = afi.run_study(
        path, studies=tmp_path / "studies", settings={"search.seed": 7}, listener=again
    )
    assert again.heard == {"space": 1, "opened": 1, "nothing left": 1, "ended": 1}
    assert same.records().equals(records)

    with one_ray():
        study.add_trials(2)
        table = study.confirm(top=1)
    assert len(study.records()) == 5
    assert study.records()[:3].equals(records)
    assert len(afi.Study.open(study.folder).records()) == 5

    assert (study.folder / "report.html") in study.report()
    assert list(table["seeds"]) == [2]
    assert 0 < table["test"].item() < 1
    assert study.confirmation is not None
    assert len(study.confirmation.records()) == 2

    best = study.front()["number"].iloc[-1]
    study.model(best).save(tmp_path / "model")
    model = afi.load(tmp_path / "model")
    assert model.architecture.text == study.records()["architecture"][best]

    assert study.prune() >= 0
    study.remove()
    assert not study.folder.exists()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("count", [0, -3])
def test_no_trials_more_are_refused_before_anything_is_written(tmp_path: Path, count: int) -> None:
    folder = tmp_path / "study"
    shutil.copytree(RECORDED, folder)
    before = (folder / "study.yaml").read_bytes()

    with pytest.raises(UserError, match=f"count must be at least 1, and is {count}"):
        afi.Study.open(folder).add_trials(count)
    assert (folder / "study.yaml").read_bytes() == before


def test_an_architectures_text_is_enough() -> None:
    text = "resnet20(base-r4, off, B-r16-se)"
    architecture = afi.Architecture.parse(text)
    sizes: Any = {"num_classes": 10, "image_size": 32}
    assert afi.measure(text, **sizes) == afi.measure(architecture, **sizes)
    assert afi.build(text, **sizes)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(UserError, match="is not a width"):
        afi.measure("resnet20(bse-r4)", **sizes)


def test_every_public_name_is_there() -> None:
    assert {name: getattr(afi, name) for name in afi.__all__}


RECORDED = Path(__file__).parents[1] / "studies" / "reference" / "resnet20-digits"
RECIPE = """
{epochs: 2, batch_size: 8, lr: 0.003, train_crop: 32, eval_resize: 36, eval_crop: 32,
 precision: fp32}
"""


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"top": 0}, "promote: top: 0 must be greater than or equal to 1"),
        ({"loader": "pil"}, "promote: loader: 'pil' must be one of torchvision, dali"),
        ({"classes": "ten"}, "promote: classes: 'ten' must be a whole number"),
    ],
)
def test_a_wrong_setting_of_a_promotion_is_told(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        afi.Study.open(RECORDED).promote("images", **asked)


def test_one_seed_confirms_nothing() -> None:
    with pytest.raises(UserError, match="confirm: seeds: 1 must be greater than or equal to 2"):
        afi.Study.open(RECORDED).confirm(seeds=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_promotion_from_python_ends_in_a_model(tmp_path: Path, pictures: Path) -> None:
    shutil.copytree(RECORDED, tmp_path / "study")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    study = afi.Study.open(tmp_path / "study")
    told: list[str] = []

    class Told(afi.Listener):
        def epoch_ended(self, result: EpochResult, epochs: int) -> None:
            told.append(f"epoch {result.epoch} of {epochs}")

        def promotion_resumed(self, finished: int, epochs: int) -> None:
            told.append(f"{finished} of {epochs} are done")

    for _ in range(2):  # the second time all of it is there
        study.promote(
            pictures,
            recipe=recipe,
            architectures=["shufflenetv2(base-r4)"],
            classes=3,
            workers=1,
            name="mine",
            listener=Told(),
        )
    assert told == ["epoch 1 of 2", "epoch 2 of 2", "2 of 2 are done"]
    model = afi.load(study.folder / "promote" / "mine" / "model")
    assert str(model.architecture) == "shufflenetv2(base-r4)"
    (guess,) = model.predict(next((pictures / "val").rglob("*.JPEG")), top=1)
    assert guess.label in model.facts.classes
