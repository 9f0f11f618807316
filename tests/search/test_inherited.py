"""Scores inherited from a supernet: entered in the ledger, and gone by while trials agree."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from afi_search.cost import SpaceCosts
from afi_search.data import read_data, split_of
from afi_search.engine.supernet import shown, supernet_file
from afi_search.model.from_checkpoint import (
    NoCheckpoint,
    inherited_model,
    read_checkpoint,
    trained_supernet,
)
from afi_search.model.model import load as load_model
from afi_search.nn import SupernetError, build, load_pretrained
from afi_search.report.export import front_csv
from afi_search.report.view import StudyView
from afi_search.search.cheap_scores import Score
from afi_search.search.explain import explain
from afi_search.search.inherited import PORTION, STARTING, Inherited, score_architectures
from afi_search.search.listener import Listener
from afi_search.search.proposer import Proposer
from afi_search.search.rank import audited, verdict
from afi_search.space import Architecture, Space, SpaceFileError
from afi_search.space.loading import SpaceDocument
from afi_search.space.schema import SpaceFile
from afi_search.study.folder import SUPERNET, StudyFile
from afi_search.study.ledger import to_frame
from afi_search.study.study import Study
from afi_search.train import save
from afi_search.train.supernet import inherited_accuracy, supernet_trainer
from tests.search.studies import accuracy, play, space_file
from tests.typed import there

DATA = {"name": "digits", "image_size": 16, "train_subset": 150, "validation_subset": 60}
FILE = SpaceFile.model_validate(
    {
        "backbone": "resnet20",
        "stages": {"all": {"choice": ["off", "base-r4", "B-r4"]}},
        "data": DATA,
        "recipe": {"epochs": 1, "batch_size": 32, "lr": 0.05, "precision": "fp32"},
        "search": {"strategy": "hybrid", "supernet": {"epochs": 1}},
    }
)


def costs_of(file: SpaceFile, image_size: int = 16) -> SpaceCosts:
    return SpaceCosts(Space(file), num_classes=10, image_size=image_size)


def images():
    return split_of(FILE.data, read_data(FILE.data))


def scorer(study: Study) -> Callable[[], Score]:
    """What a worker does."""

    def score() -> Score:
        place, cpu = there(study.supernet).trial_checkpoints(0), torch.device("cpu")
        file = study.file.space
        accuracy = inherited_accuracy(file, place, images(), precision="fp32", device=cpu)
        return lambda some: (
            {"inherited": accuracy(one).accuracy, "inherited_seconds": 0.1} for one in some
        )

    return score


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    """What a worker has trained."""
    costs, file = costs_of(FILE), supernet_file(FILE)
    trainer = supernet_trainer(
        file, costs.table, shown(costs), file.recipe, images(), seed=0, device=torch.device("cpu")
    )
    trainer.run_epoch()
    return trainer.state_dict()


def study_in(folder: Path, file: SpaceFile, state: dict[str, Any] | None) -> Study:
    """Return a study that has trained its supernet; none where there is no state."""
    with Study.begin(folder, StudyFile("study", "", "", file, {})) as study:
        if state is not None:
            asked = StudyFile("study-supernet", "", "", supernet_file(file), {})
            with Study.begin(folder / SUPERNET, asked) as training:
                save(state, training.trial_checkpoints(0))
    return study


class Scored(Listener):
    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def scored(self, count: int, total: int) -> None:
        self.told.append((count, total))


def test_all_of_a_small_space_are_scored_once_and_none_is_on_the_front(tmp_path, state):
    study, listener = study_in(tmp_path, FILE, state), Scored()
    scores = score_architectures(study, costs_of(FILE), scorer(study), listener)
    assert sorted(scores.index) == sorted(a.text for a in Space(FILE).architectures())
    assert scores["inherited"].between(0, 1).all()
    assert listener.told == [(27, 27)]
    assert study.front().empty and study.records().empty

    def never():
        raise AssertionError("everything is known")

    again = score_architectures(Study.open(tmp_path), costs_of(FILE), never, Listener())
    pd.testing.assert_frame_equal(again, scores)


def test_scoring_goes_on_where_it_was_killed(tmp_path, state):
    study = study_in(tmp_path, FILE, state)
    some = list(Space(FILE).architectures())[:5]
    study.ledger.note_scores({one: {"inherited": 0.123} for one in some})
    outside = Architecture.parse("resnet20(B-r16)")  # a baseline, with cheap scores alone
    study.ledger.note_scores({outside: {"synflow": 1.0}})
    scores = score_architectures(study, costs_of(FILE), scorer(study), Listener())
    assert scores["inherited"].notna().sum() == 27
    assert (scores.loc[[one.text for one in some], "inherited"] == 0.123).all()


def test_of_a_large_space_the_sampler_says_what_is_scored_within_the_limits(tmp_path, state):
    limits = {"macs": 11_000_000}
    search = FILE.search.model_copy(
        update={"supernet": FILE.search.supernet.model_copy(update={"scores": 16})}
    )
    file = SpaceFile.model_validate(
        {**FILE.model_dump(mode="json"), "constraints": limits}
    ).model_copy(update={"search": search})
    assert 27 > there(costs_of(file).feasible) > 16 < PORTION
    study = study_in(tmp_path, file, state)
    scores = score_architectures(study, costs_of(file), scorer(study), Listener())
    assert len(scores) == 16
    costs = costs_of(file)
    assert all(costs.of(Architecture.parse(text)).macs <= 11_000_000 for text in scores.index)


def test_later_rounds_add_scores_and_trials_to_the_ledger(tmp_path, state):
    """A study that is asked for more scores, then for more trials, keeps what it has."""

    def with_scores(count: int, trials: int = 8) -> SpaceFile:
        supernet = FILE.search.supernet.model_copy(update={"scores": count})
        search = FILE.search.model_copy(update={"supernet": supernet, "trials": trials})
        return FILE.model_copy(update={"search": search})

    entered = pd.DataFrame()
    told: list[Any] = []
    for count in (5, 12, 27):
        file = with_scores(count)
        study, listener = study_in(tmp_path, file, state if entered.empty else None), Scored()
        scores = score_architectures(study, costs_of(file), scorer(study), listener)
        assert len(scores) == count
        assert entered.empty or scores.loc[entered.index].equals(entered)
        entered, told = scores, [*told, *listener.told]
    assert told == [(5, 5), (12, 12), (27, 27)]

    accuracies = {Architecture.parse(text): of for text, of in entered["inherited"].items()}
    begun: list[str] = []
    for trials in (3, 8):
        file = with_scores(27, trials=trials)
        records = tried(file, tmp_path, accuracies)
        assert len(records) == trials and records["architecture"].is_unique
        assert records["architecture"].tolist()[: len(begun)] == begun
        begun = records["architecture"].tolist()
    assert Study.open(tmp_path).ledger.scores().equals(entered)


def test_a_study_without_a_supernet_says_so(tmp_path):
    study = study_in(tmp_path, FILE, None)
    with pytest.raises(NoCheckpoint, match="strategy: hybrid"):
        trained_supernet(study)


def test_an_extracted_model_is_the_network_that_was_scored(tmp_path, state):
    study = study_in(tmp_path / "study", FILE, state)
    text = "resnet20(base-r4, off, B-r4)"
    scores = score_architectures(study, costs_of(FILE), scorer(study), Listener())
    model = inherited_model(study, text)
    assert model.facts.metrics["validation accuracy, inherited"] == scores.loc[text, "inherited"]
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.architecture == Architecture.parse(text)
    pixels = torch.randn(2, 3, 16, 16)
    assert torch.equal(loaded(pixels), model(pixels))
    assert torch.equal(read_checkpoint(str(tmp_path / "model"))(pixels), model(pixels))
    other = build(text, num_classes=10, image_size=16)
    assert not load_pretrained(other, tmp_path / "model").fresh
    torch.testing.assert_close(other.eval()(pixels), model(pixels))
    with pytest.raises(SupernetError, match="stage 1 cannot be 'B-r2'"):
        inherited_model(study, "resnet20(B-r2)")


# ---- what a search makes of them


def proposer_for(file: SpaceFile, scores: dict[Architecture, float]) -> Proposer:
    costs = costs_of(file, 32)
    table = pd.DataFrame({"inherited": {a.text: score for a, score in scores.items()}})
    return Proposer(Space(file), costs, None, Inherited(costs, table))


def final(architecture: Architecture) -> float:
    return accuracy(architecture, 9)


def tried(file: SpaceFile, folder: Path, scores: dict[Architecture, float]) -> pd.DataFrame:
    from afi_search.search.conductor import Conductor
    from afi_search.search.pruners import make_pruner

    study = study_in(folder, file, None)
    proposer = proposer_for(file, scores)
    play(Conductor(study.ledger, file, proposer, make_pruner(file)))
    return study.records()


def searched(strategy: str, trials: int = 30) -> SpaceFile:
    return space_file(search={"strategy": strategy, "trials": trials, "pruner": "none"})


def test_the_strategy_supernet_tries_the_front_of_scores_first(tmp_path):
    file = searched("supernet", trials=8)
    scores = {a: final(a) for a in Space(file).architectures()}
    records = tried(file, tmp_path, scores)
    assert set(records["origin"]) == {"inherited"}
    costs = costs_of(file, 32)
    best = records.set_index("architecture")["macs"]
    for text, macs in best.items():
        ours = scores[Architecture.parse(text)]
        beaten = [a for a, s in scores.items() if s > ours and costs.of(a).macs <= macs]
        assert not beaten or len(best) > len(beaten)


def test_a_hybrid_search_starts_with_the_best_and_goes_on_with_its_sampler(tmp_path):
    file = searched("hybrid", trials=20)
    records = tried(file, tmp_path, {a: final(a) for a in Space(file).architectures()})
    assert records["origin"].tolist() == ["inherited"] * STARTING + ["known-cost"] * 10


def test_it_is_told_what_was_inherited(tmp_path):
    file = searched("hybrid", trials=16)
    scores = {a: final(a) for a in Space(file).architectures()}
    tried(file, tmp_path, scores)
    for trial in Study.open(tmp_path).ledger.trials():
        inherited = scores[Architecture.parse(trial.user_attrs["architecture"])]
        assert f"weights of the supernet it had an accuracy of {inherited:.2%}." in str(
            list(explain(trial))
        )


def test_a_hint_that_is_right_leads_a_search_to_the_best(tmp_path):
    file = searched("hybrid", trials=18)
    every = list(Space(file).architectures())
    with_hint = tried(file, tmp_path / "a", {a: final(a) for a in every})
    without = tried(searched("scratch", trials=18), tmp_path / "b", dict.fromkeys(every, 0.5))
    assert with_hint["accuracy"].nlargest(5).mean() > without["accuracy"].nlargest(5).mean()


def test_scores_that_trials_contradict_are_left_out_of_the_next_proposal(tmp_path):
    file = searched("supernet", trials=16)
    records = tried(file, tmp_path, {a: -final(a) for a in Space(file).architectures()})
    assert records["origin"].tolist()[:12] == ["inherited"] * 12
    assert set(records["origin"][12:]) == {"known-cost"}


def test_what_the_run_says_of_the_scores_is_what_its_next_proposal_goes_by(tmp_path):
    file = searched("scratch", trials=30)
    every = list(Space(file).architectures())
    tried(file, tmp_path, dict.fromkeys(every, 0.5))
    trials = Study.open(tmp_path).ledger.trials()
    scores = {a: final(a) for a in every}
    for trial in trials[14:]:  # the first 14 agree with the scores, the others do not
        scores[Architecture.parse(trial.user_attrs["architecture"])] *= -1
    table = pd.DataFrame({"inherited": {a.text: score for a, score in scores.items()}})
    inherited, verdicts = Inherited(costs_of(file, 32), table), []
    for count in range(10, 31):
        said = verdict(audited(to_frame(trials[:count]), table, {}))
        verdicts.append(inherited.is_trusted(trials[:count]))
        assert verdicts[-1] == ("left out of proposals" not in said)
    assert set(verdicts) == {True, False}


def test_a_driver_that_goes_on_proposes_what_the_first_would_have(tmp_path):
    scores = {
        a: -final(a) if a.stages[0] else final(a) for a in Space(searched("hybrid")).architectures()
    }
    whole = tried(searched("hybrid", trials=30), tmp_path / "one", scores)
    for trials in (7, 13, 26, 30):
        parts = tried(searched("hybrid", trials=trials), tmp_path / "parts", scores)
    assert parts["architecture"].tolist() == whole["architecture"].tolist()
    assert parts["origin"].tolist() == whole["origin"].tolist()


def test_several_backbones_are_told_when_the_file_is_read(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "architectures: [resnet20, resnet32]\ndata: {name: digits}\nsearch:\n  strategy: hybrid\n"
    )
    with pytest.raises(SpaceFileError, match=r"space.yaml:4: .*resnet20, resnet32; take 'scratch'"):
        SpaceDocument.read(path)


@pytest.mark.parametrize("init", ["random", "inherited"])
def test_trials_of_the_space_start_with_inherited_weights_where_that_is_asked_for(tmp_path, init):
    search = {"strategy": "hybrid", "init": init, "trials": 12, "baselines": True}
    file = space_file(search=search | {"pruner": "none"})
    records = tried(file, tmp_path, {a: final(a) for a in Space(file).architectures()})
    inside = [Architecture.parse(text) in Space(file) for text in records["architecture"]]
    assert records["init"].tolist() == [init if within else "random" for within in inside]
    assert inside.count(False) == 1  # the paper's B-r16
    told = [
        "started with the weights that it inherits" in "\n".join(explain(trial))
        for trial in Study.open(tmp_path).ledger.trials()
    ]
    assert told == (records["init"] == "inherited").tolist()
    front = pd.read_csv(StringIO(front_csv(StudyView.of(Study.open(tmp_path)))))
    assert init in set(front["init"]) and len(front) <= len(records)


@pytest.mark.parametrize("init", ["random", "inherited"])
def test_the_card_of_a_trials_network_says_that_it_started_with_inherited_weights(tmp_path, init):
    file = space_file(search={"strategy": "hybrid", "init": init, "trials": 1, "pruner": "none"})
    best = Architecture.parse("resnet20(base-r4)")
    tried(file, tmp_path, {best: 0.5})
    network = build(best, num_classes=10, image_size=32)
    with Study.begin(tmp_path, Study.open(tmp_path).file) as study:
        save({"model": network.state_dict(), "epoch": 9}, study.trial_checkpoints(0))
    read_checkpoint(f"{tmp_path}/checkpoints/00000").save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    told = "| started with | the weights that it inherits from the study's supernet |"
    assert (told in card.splitlines()) == (init == "inherited")


def test_heirs_without_a_supernet_are_told_when_the_file_is_read(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("backbone: resnet20\ndata: {name: digits}\nsearch:\n  init: inherited\n")
    with pytest.raises(SpaceFileError, match=r"space.yaml:4: .*take 'random', or strategy"):
        SpaceDocument.read(path)


def test_what_was_not_scored_is_told_apart(tmp_path):
    file = searched("hybrid", trials=12)
    every = list(Space(file).architectures())
    tried(file, tmp_path, {a: final(a) for a in every[:STARTING]})
    trials = Study.open(tmp_path).ledger.trials()
    scored = {a.text for a in every[:STARTING]}
    for trial in trials:
        told = "\n".join(explain(trial))
        assert ("it was not scored itself" in told) == (
            trial.user_attrs["architecture"] not in scored
        )


def test_a_study_is_removed_with_its_supernet(tmp_path, state):
    study = study_in(tmp_path / "study", FILE, state)
    assert (tmp_path / "study" / SUPERNET / "checkpoints").is_dir()
    study.remove()
    assert not (tmp_path / "study").exists()


def test_what_was_not_scored_is_told_from_what_its_choices_have_in_common():
    file = searched("hybrid")
    every = list(Space(file).architectures())
    worth = {None: 0.0, "base": 0.1, "B": 0.2}
    additive = {a: 0.3 + sum(worth[c.width if c else None] for c in a.stages) for a in every}
    some = {a: additive[a] for a in every[::2]}
    inherited = Inherited(
        costs_of(file, 32), pd.DataFrame({"inherited": {a.text: s for a, s in some.items()}})
    )
    for one in every:
        assert inherited.accuracy(one) == pytest.approx(additive[one])
