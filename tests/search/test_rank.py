"""How scores agree with what full trainings reach."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from afi_search.search.rank import (
    FEWEST,
    audited,
    beats_what_is_free,
    kendall,
    partial_kendall,
    rank_table,
    verdict,
)


def series(*values: float) -> pd.Series:
    return pd.Series(values, dtype=float)


def test_kendalls_tau_counts_pairs():
    # Of ten pairs, two are the other way round.
    assert kendall(series(1, 2, 3, 4, 5), series(1, 3, 2, 5, 4)).tau == pytest.approx(0.6)


def test_the_interval_is_fiellers():
    score, truth = pd.Series(np.arange(30.0)), pd.Series(np.random.default_rng(0).permutation(30))
    found = kendall(score, truth)
    half = 1.96 * math.sqrt(0.437 / 26)
    assert math.atanh(found.high) - math.atanh(found.tau) == pytest.approx(half)
    assert math.atanh(found.tau) - math.atanh(found.low) == pytest.approx(half)


def test_few_values_have_no_interval():
    assert math.isnan(kendall(series(1, 2, 3), series(1, 3, 2)).low)


def test_a_score_that_is_only_size_says_nothing_among_equal_sizes():
    random = np.random.default_rng(0)
    size = pd.Series(np.repeat(np.arange(20.0), 20))
    truth = size + pd.Series(random.normal(0, 3, 400))
    noisy_size = size + pd.Series(random.normal(0, 3, 400))
    knows = truth + pd.Series(random.normal(0, 1, 400))
    assert kendall(noisy_size, truth).tau > 0.5
    assert abs(partial_kendall(noisy_size, truth, size).tau) < 0.12
    assert partial_kendall(knows, truth, size).low > 0.3


def test_what_is_size_itself_has_no_partial_tau():
    size = pd.Series(np.arange(15.0))
    assert math.isnan(partial_kendall(size, size**2 + 1, size).tau)


def test_scores_of_too_few_architectures_or_without_differences_are_left_out():
    truth = pd.Series(np.arange(20.0))
    scores = pd.DataFrame(
        {
            "macs": np.arange(20) % 7,
            "few": [1.0, 2.0, *[np.nan] * 18],
            "same": 3.0,
            "good": np.arange(20) * 2.0,
        }
    )
    table = rank_table(scores, truth, {"good": 6.0})
    assert list(table.index) == ["macs", "good"]
    assert list(table.loc["good", ["tau", "cost", "count"]]) == [pytest.approx(1), 6.0, 20]
    assert rank_table(scores[: FEWEST - 1], truth[: FEWEST - 1]).empty


def records(inherited_is_right: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return 20 trials of 4 epochs whose accuracy has nothing to do with size, and scores."""
    random = np.random.default_rng(2)
    accuracy = random.permutation(20) / 20
    names = [f"net{number}" for number in range(20)]
    table = pd.DataFrame(
        {
            "architecture": names,
            "full": True,
            "init": "random",
            "epochs": 4,
            "accuracy": accuracy,
            "macs": random.permutation(20),
            "params": random.permutation(20),
            "curve": [[final * 0.5, 0.0, final * 0.9, final] for final in accuracy],
        }
    )
    inherited = accuracy if inherited_is_right else -accuracy
    return table, pd.DataFrame({"inherited": inherited}, index=names)


def test_a_study_is_audited_with_its_first_epochs_beside_the_scores():
    table = audited(*records(True), {"inherited": 7.5})
    assert list(table.index) == ["macs", "params", "inherited", "after 1 epoch", "after 3 epochs"]
    assert table["cost"].tolist() == [0, 0, 7.5, 5, 15]
    assert table.loc["inherited", "tau"] == pytest.approx(1)


def test_the_verdict_says_whether_the_supernet_beats_what_is_free():
    right, wrong = (audited(*records(is_right), {}) for is_right in (True, False))
    assert beats_what_is_free(right) is True
    assert verdict(right).startswith("The supernet orders architectures better than their size")
    assert beats_what_is_free(wrong) is False
    assert verdict(wrong).startswith("The supernet does not beat what is free")
    for name, word in (("macs", "MACs"), ("params", "parameters")):
        assert f"of {word} alone {wrong['tau'][name]:.2f}" in verdict(wrong)


def test_the_verdict_says_where_trials_owe_their_accuracies_to_the_supernet():
    table, scores = records(True)
    assert "Trials started with its weights" not in verdict(audited(table, scores, {}))
    heirs = audited(table.assign(init="inherited"), scores, {})
    assert verdict(heirs).endswith(
        "Trials started with its weights, which by itself makes them agree with it."
    )


def test_without_enough_trials_there_is_no_verdict():
    table, scores = records(True)
    few = audited(table[: FEWEST - 1], scores, {})
    assert beats_what_is_free(few) is None
    assert verdict(few) == ""


def test_an_architecture_trained_twice_counts_once():
    table, scores = records(True)
    twice = pd.concat([table, table])
    assert audited(twice, scores, {}).loc["inherited", "count"] == 20
