from __future__ import annotations

from pathlib import Path

from optuna.trial import TrialState

from afi_search.search.explain import explain
from afi_search.study.ledger import PREDICTION
from tests.search.studies import conductor_for, play, space_file
from tests.typed import there


def test_every_decision_about_every_trial_is_told(tmp_path: Path) -> None:
    ledger, conductor = conductor_for(space_file(search={"first": ["resnet20"]}), tmp_path)
    play(conductor)

    for trial in ledger.trials():
        told = (line for line in explain(trial) if "was predicted" not in line)
        first, origin, *rungs, ending = told
        assert first.startswith(f"Trial {trial.number}: {trial.user_attrs['architecture']}, seed 0")
        assert ("comes before" in origin or "come before" in origin) == (trial.number == 0)
        assert [line.split(",")[0] for line in rungs] == [
            f"Epoch {epoch}" for epoch in (1, 3) if epoch in trial.intermediate_values
        ]
        stopped = trial.state == TrialState.PRUNED
        assert ending.startswith("It was pruned" if stopped else "It is complete: 9 of 9 epochs")
        assert (": stopped: behind" in rungs[-1]) == stopped


def test_what_was_predicted_is_told_beside_what_came(tmp_path: Path) -> None:
    file = space_file(search={"sampler": "known-cost"})
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor)
    drawn, modelled = list(explain(ledger.find(0))), list(explain(ledger.find(19)))
    mean, deviation = ledger.find(19).system_attrs[PREDICTION]

    assert drawn[1] == modelled[1] == "It was proposed by the sampler known-cost."
    assert "predicted" not in " ".join(drawn)
    assert modelled[2].endswith(f"of {mean:.2%} +- {deviation:.2%} was predicted.")


def test_failures_give_their_reason(tmp_path: Path) -> None:
    ledger, conductor = conductor_for(space_file(), tmp_path)
    conductor.fail(there(conductor.next()).number, "out of memory")

    assert list(explain(ledger.find(0)))[-1] == "It failed after 0 of 9 epochs: out of memory."
