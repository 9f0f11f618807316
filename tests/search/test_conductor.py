from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from afi_search.study.journal import Journal
from tests.search.studies import Killed, conductor_for, play, space_file
from tests.typed import there

WHAT_COUNTS = ["number", "state", "architecture", "seed", "epochs", "full", "accuracy", "macs"]


def test_a_study_ends_with_the_trials_asked_for_and_none_running(tmp_path: Path) -> None:
    ledger, conductor = conductor_for(space_file(), tmp_path)
    trained = play(conductor, workers=3)
    records = ledger.records()

    assert len(records) == 20
    assert set(records["state"]) == {"complete", "pruned"}
    assert records["architecture"].is_unique
    assert dict(zip(records["number"], records["epochs"], strict=True)) == trained


def test_pruned_trials_keep_their_curve_and_have_no_values(tmp_path: Path) -> None:
    ledger, conductor = conductor_for(space_file(), tmp_path)
    play(conductor)
    pruned = ledger.trials((TrialState.PRUNED,))

    assert pruned
    for trial in pruned:
        assert sorted(trial.intermediate_values) == list(range(1, there(trial.last_step) + 1))
        assert trial.values is None
        assert trial.last_step in (1, 3, 9)
    records = ledger.records()
    assert not records.loc[records["state"] == "pruned", "full"].any()


def test_complete_trials_have_the_objectives_as_values(tmp_path: Path) -> None:
    file = space_file()
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor)
    records = ledger.records().set_index("number")

    for trial in ledger.trials((TrialState.COMPLETE,)):
        row = records.loc[trial.number]
        assert row["full"]
        assert row["epochs"] == 9
        assert trial.values == [row["accuracy"], row["macs"]]


def test_a_finished_study_starts_nothing(tmp_path: Path) -> None:
    play(conductor_for(space_file(), tmp_path)[1])
    ledger, again = conductor_for(space_file(), tmp_path)

    assert not again.has_next
    assert again.next() is None
    assert play(again) == {}
    assert len(ledger.trials()) == 20


def test_more_trials_extend_a_study(tmp_path: Path) -> None:
    play(conductor_for(space_file(), tmp_path)[1])
    ledger, more = conductor_for(space_file(search={"trials": 25}), tmp_path)

    assert set(play(more)) == set(range(20, 25))
    assert ledger.records()["architecture"].is_unique


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("known-cost", "mo-asha"),
        ("known-cost", "none"),
        ("tpe", "mo-asha"),
        ("tpe", "none"),
        ("nsga2", "mo-asha"),
        ("nsga2", "none"),
        ("gp", "mo-asha"),
        ("random", "mo-asha"),
        ("grid", "mo-asha"),
    ],
)
def test_killed_at_any_moment_a_study_ends_as_if_it_never_was(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    """One worker, and a driver that dies after each kind of step, again and again."""
    file = space_file(search={"sampler": sampler, "pruner": {"name": pruner}, "trials": 16})
    whole, conductor = conductor_for(file, tmp_path / "whole")
    needed = play(conductor)

    checkpoints: dict[int, int] = {}
    deaths, trained = 0, 0
    while True:
        ledger, conductor = conductor_for(file, tmp_path / "broken")
        lives = 3 + deaths % 7

        def die(number: int, epoch: int) -> None:
            nonlocal lives, trained
            trained += 1
            lives -= 1
            if lives == 0:
                raise Killed

        try:
            play(conductor, checkpoints=checkpoints, on_epoch=die)
            break
        except Killed:
            deaths += 1

    assert deaths > 5
    assert trained == sum(needed.values())
    expected, got = whole.records()[WHAT_COUNTS], ledger.records()[WHAT_COUNTS]
    assert got.to_dict("records") == expected.to_dict("records")


@pytest.mark.parametrize(
    ("objectives", "pruner"),
    [(["accuracy", "macs"], "mo-asha")]
    + [(["accuracy"], name) for name in ("median", "asha", "hyperband")],
)
def test_killed_between_any_two_writes_a_study_ends_as_if_it_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objectives: list[str], pruner: str
) -> None:
    """Every driver enters one line in the ledger, or two, and dies before the next."""
    search = {"sampler": "tpe", "pruner": {"name": pruner, "min_trials": 2}, "trials": 12}
    file = space_file(objectives=objectives, search=search)
    whole, conductor = conductor_for(file, tmp_path / "whole")
    play(conductor)
    conductor_for(file, tmp_path / "broken")

    append, written, deaths = Journal.append_logs, 0, 0

    def die(journal: Journal, lines: list[dict[str, object]]) -> None:
        nonlocal written
        if written > deaths % 2:
            raise Killed
        append(journal, lines)
        written += 1

    monkeypatch.setattr(Journal, "append_logs", die)
    checkpoints: dict[int, int] = {}
    while True:
        written = 0
        try:
            ledger, conductor = conductor_for(file, tmp_path / "broken")
            play(conductor, checkpoints=checkpoints)
            break
        except Killed:
            deaths += 1

    assert deaths > 50
    expected, got = whole.records()[WHAT_COUNTS], ledger.records()[WHAT_COUNTS]
    assert set(got["state"]) == {"complete", "pruned"}
    assert got.to_dict("records") == expected.to_dict("records")


def test_epochs_that_only_the_checkpoint_knows_are_entered_and_judged(tmp_path: Path) -> None:
    """Rung 1 was never compared by the driver that died; the next one does, before going on."""
    file = space_file(search={"first": ["resnet20"], "trials": 6})
    ledger, conductor = conductor_for(file, tmp_path)
    for accuracy in (0.9, 0.8, 0.7):
        number = there(conductor.next()).number
        conductor.report(number, [accuracy], 1.0)
    late = there(conductor.next()).number

    _, successor = conductor_for(file, tmp_path)
    assigned = {there(successor.next()).number for _ in range(4)}
    assert late in assigned
    stopped = successor.report(late, [0.01, 0.99, 0.99], 3.0)
    trial = ledger.trial(late)
    dominated = any(
        other.user_attrs["macs"] <= trial.user_attrs["macs"]
        for other in ledger.trials()
        if other.number != late and other.intermediate_values
    )
    assert stopped == dominated
    assert trial.intermediate_values[1] == 0.01
    if stopped:
        assert trial.state == TrialState.PRUNED
        assert 2 not in trial.intermediate_values


def test_failures_say_why_and_do_not_come_back(tmp_path: Path) -> None:
    ledger, conductor = conductor_for(space_file(search={"trials": 2}), tmp_path)
    first = there(conductor.next())
    conductor.report(first.number, [0.5], 1.0)
    conductor.fail(first.number, "loss became nan at epoch 2")
    play(conductor)
    records = ledger.records().set_index("number")

    assert records.loc[0, "state"] == "failed"
    assert records.loc[0, "reason"] == "loss became nan at epoch 2"
    assert records.loc[0, "epochs"] == 1
    assert not records.loc[0, "full"]
    assert records["architecture"].is_unique
    _, again = conductor_for(space_file(search={"trials": 2}), tmp_path)
    assert not again.has_next


def test_interrupted_trials_wait_and_go_on_as_themselves(tmp_path: Path) -> None:
    file = space_file(search={"pruner": {"name": "none"}})
    ledger, conductor = conductor_for(file, tmp_path)
    first = there(conductor.next())
    conductor.report(first.number, [0.1, 0.2], 2.0)
    conductor.interrupt()

    assert ledger.trial(first.number).state == TrialState.WAITING
    _, successor = conductor_for(file, tmp_path)
    again = there(successor.next())
    assert (again.number, again.architecture, again.seed) == (
        first.number,
        first.architecture,
        first.seed,
    )
    assert ledger.trial(first.number).state == TrialState.RUNNING
    assert ledger.trial(first.number).intermediate_values == {1: 0.1, 2: 0.2}


def test_whoever_listens_hears_of_every_change(tmp_path: Path) -> None:
    heard: list[tuple[int, str]] = []
    _, conductor = conductor_for(
        space_file(recipe={"epochs": 2}, search={"trials": 1, "pruner": {"name": "none"}}),
        tmp_path,
        on_change=lambda trial: heard.append((trial.number, trial.state.name)),
    )
    play(conductor)

    assert heard == [(0, "RUNNING"), (0, "RUNNING"), (0, "COMPLETE")]


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median"])
def test_optunas_pruners_work_on_accuracy_alone(tmp_path: Path, pruner: str) -> None:
    file = space_file(objectives=["accuracy"], search={"pruner": {"name": pruner}, "trials": 25})
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor, workers=2)
    states = ledger.records()["state"].value_counts()

    assert states["pruned"] > 0
    assert states["complete"] > 0
    assert states.sum() == 25
