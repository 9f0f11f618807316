"""A search that goes by a supernet: trained in a Ray worker, killed, resumed, scored, audited."""

from __future__ import annotations

import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

import afi_search as afi
from afi_search.cost import SpaceCosts
from afi_search.data import read_data, split_of
from afi_search.device import threads
from afi_search.engine.capacity import Node, plan_trials
from afi_search.engine.ray_session import RaySession
from afi_search.engine.run_study import Run
from afi_search.engine.supernet import scored_by_workers, shown, supernet_file
from afi_search.model.from_checkpoint import trained_supernet
from afi_search.search.explain import explain
from afi_search.search.inherited import PORTION, score_architectures
from afi_search.search.listener import Listener
from afi_search.search.rank import audit
from afi_search.space import Space
from afi_search.study.folder import SUPERNET, StudyFile
from afi_search.study.ledger import DEATHS, Ledger
from afi_search.study.study import Study
from afi_search.train import save, seed_everything
from afi_search.train.supernet import inherited_accuracy, supernet_trainer
from tests.driver import Driver, matching
from tests.typed import there

SPACE = """
backbone: resnet20
stages: {all: {choice: [off, base-r4, B-r4]}}
data: {name: digits, image_size: 16, train_subset: 320, validation_subset: 40}
recipe: {epochs: 2, batch_size: 32, lr: 0.05, precision: fp32}
search:
  trials: 13
  concurrency: 2
  baselines: false
  strategy: supernet
  supernet: {sampling: single-path, epochs: 6}
"""

PATIENCE = 1200


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_supernet_is_killed_stopped_and_resumed_and_its_best_are_trained(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    arguments = ("space.yaml", "--name", "study", "--preset", "none")
    for epoch, how, code in ((1, signal.SIGKILL, -9), (2, signal.SIGINT, 130)):
        stopped = Driver(tmp_path, *arguments)
        stopped.wait_for(f"epoch {epoch}/6", PATIENCE)
        stopped.process.send_signal(how)
        assert stopped.end(PATIENCE) == code, stopped.output
    assert (
        "First the supernet: 6 epochs, about the cost of 3 trials. The accuracy" in stopped.output
    )

    last = Driver(tmp_path, *arguments)
    last.wait_for("epoch 3/6", PATIENCE)
    for worker in last.descendants("ray::ResourceTrainable"):
        worker.kill()
    assert last.end(PATIENCE) == 0, last.output
    assert "epoch 6/6" in last.output and "epoch 1/6" not in last.output
    assert "27 of 27 architectures have an inherited accuracy." in last.output
    assert "Actor with class name" not in last.output  # Ray's own words
    assert "Kendall's tau with the final accuracies" in last.output

    study = afi.Study.open(tmp_path / "studies" / "study")
    records, scores = study.records(), study.ledger.scores()
    assert set(records["origin"][:12]) == {"inherited"} and records["full"].all()
    assert len(scores) == 27 and scores["synflow"].notna().sum() == 13
    assert len(study.front()) <= 13
    assert audit(study).attrs["training"] == 3  # 6 epochs of one at a time; trials have 2
    assert "inherit from the supernet" in "\n".join(explain(study.ledger.trial(0)))
    assert "What scores are worth" in study.report()[-1].read_text(encoding="utf-8")
    assert there(study.supernet).ledger.trial(0).user_attrs[DEATHS]
    state, undisturbed = trained_supernet(study).state_dict(), trained_at_once(study)
    assert all(torch.equal(tensor, undisturbed[name]) for name, tensor in state.items())

    again = Driver(tmp_path, *arguments)
    assert again.end(PATIENCE) == 0, again.output
    assert "nothing left to train" in again.output
    assert afi.Study.open(study.folder).ledger.scores().equals(scores)

    study.remove()
    assert not study.folder.exists()


class Killing(Listener):
    """Kills the workers that score, once the first scores are in the ledger."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.killed: list[psutil.Process] = []

    def scored(self, count: int, total: int) -> None:
        if not self.killed:
            self.entered = self.study.ledger.scores()
            self.killed = matching(lambda: psutil.Process().children(recursive=True), ("_Scorer",))
            for worker in self.killed:
                worker.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scoring_workers_that_are_killed_are_followed_by_others(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE.replace("B-r4]", "B-r4, B-r16]"))
    space = Space.load(tmp_path / "space.yaml")
    costs = SpaceCosts(space, num_classes=10, image_size=16)
    torch.manual_seed(2)
    state = {"model": afi.Supernet(space).state_dict(), "epoch": 1}
    inner = StudyFile("study-supernet", "", "", supernet_file(space.file), {})
    with (
        RaySession(None, print) as session,
        Study.begin(tmp_path, StudyFile("study", "", "", space.file, {})) as study,
    ):
        session.begin()
        with Study.begin(tmp_path / SUPERNET, inner) as training:
            save(state, training.trial_checkpoints(0))
        killing = Killing(study)
        score = partial(scored_by_workers, study, Run(session, None, killing), "inherited")
        scores = score_architectures(study, costs, score, killing)

    assert killing.killed and len(killing.entered) == PORTION < len(scores) == 64
    assert scores.loc[killing.entered.index].equals(killing.entered)
    data, place = (
        split_of(space.file.data, read_data(space.file.data)),
        training.trial_checkpoints(0),
    )
    cpu = torch.device("cpu")
    undisturbed = inherited_accuracy(space.file, place, data, precision="fp32", device=cpu)
    with threads(1):
        for text, inherited in scores["inherited"][::4].items():
            assert undisturbed(afi.Architecture.parse(str(text))).accuracy == inherited, text


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ctrl_c_while_scoring_is_answered_in_our_words_alone_and_scores_are_kept(
    tmp_path: Path,
) -> None:
    space = SPACE.replace("B-r4]", "B-r4, B-r16]").replace("epochs: 6", "epochs: 1")
    (tmp_path / "space.yaml").write_text(space.replace("trials: 13", "trials: 1"))
    driver = Driver(tmp_path, "space.yaml", prefix=("setsid",))
    driver.wait_for(f"{PORTION} of 64 architectures have", PATIENCE)
    os.killpg(driver.process.pid, signal.SIGINT)  # as a terminal does
    assert driver.end(PATIENCE) == 130
    _, told = driver.output.split(" of 64 architectures have an inherited accuracy.\n", 1)
    assert re.fullmatch(r"(\nStopping\. .*\n)?Interrupted\. .*\n", told)

    ledger = Ledger.open(tmp_path / "studies" / "resnet20-digits")
    entered = ledger.scores()
    assert len(entered) == PORTION
    twice = Driver(tmp_path, "space.yaml", prefix=("setsid",))
    while not twice.descendants("_Scorer"):
        assert twice.process.poll() is None, twice.output
        time.sleep(0.05)
    os.killpg(twice.process.pid, signal.SIGINT)
    twice.wait_for("Ctrl-C again stops at once")
    os.killpg(twice.process.pid, signal.SIGINT)
    assert twice.end(PATIENCE) == 130
    assert twice.output.endswith("Stopped at once. The same command resumes it.\n")

    last = Driver(tmp_path, "space.yaml")
    assert last.end(PATIENCE) == 0, last.output
    assert "64 of 64 architectures have an inherited accuracy." in last.output
    assert "epoch 1/1" not in last.output.split("Ray dashboard")[0]
    assert ledger.scores().loc[entered.index].equals(entered)


def trained_at_once(study: afi.Study) -> dict[str, torch.Tensor]:
    """Return the weights of the study's supernet, trained by this process from begin to end."""
    file = supernet_file(study.file.space)
    costs = SpaceCosts(Space(study.file.space), num_classes=10, image_size=16)
    seed_everything(file.search.seed)
    trainer = supernet_trainer(
        study.file.space,
        costs.table,
        shown(costs),
        file.recipe,
        split_of(file.data, read_data(file.data)),
        seed=file.search.seed,
        device=torch.device("cpu"),
    )
    with threads(plan_trials(file.search, [Node(os.cpu_count() or 1, 0)]).threads):
        while not trainer.done:
            trainer.run_epoch()
    return trainer.model.state_dict()
