from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from afi_search.search.pruners import MultiObjectiveAsha
from afi_search.search.pruners.mo_asha import goes_on, is_rung, standing

accuracies, costs = st.integers(0, 20).map(lambda n: n / 20), st.integers(1, 12).map(float)
points: st.SearchStrategy[Any] = st.integers(1, 3).flatmap(
    lambda count: st.lists(st.tuples(accuracies, *[costs] * count), min_size=1, max_size=25).map(
        np.array
    )
)
reductions = st.integers(2, 5)


def keeps(peers: np.ndarray, reduction: int) -> np.ndarray:
    rows = range(len(peers))
    return np.array([goes_on(*standing(peers, row), len(peers), reduction) for row in rows])


def dominated(peers: np.ndarray, row: int) -> bool:
    accuracy, *costs = peers[row].tolist()
    return any(
        a >= accuracy
        and all(one <= other for one, other in zip(c, costs, strict=True))
        and (a, c) != (accuracy, costs)
        for a, *c in peers.tolist()
    )


@given(points, reductions)
@settings(deadline=None)
def test_what_is_not_dominated_goes_on(peers: np.ndarray, reduction: int) -> None:
    kept = keeps(peers, reduction)

    assert all(kept[row] for row in range(len(peers)) if not dominated(peers, row))


@given(points, reductions)
@settings(deadline=None)
def test_what_many_peers_dominate_is_stopped(peers: np.ndarray, reduction: int) -> None:
    kept = keeps(peers, reduction)

    for row in range(len(peers)):
        dominating = sum(dominated(peers[[row, other]], 0) for other in range(len(peers)))
        if dominating >= max(1, len(peers) // reduction):
            assert not kept[row]


@given(points, reductions, st.randoms())
@settings(deadline=None)
def test_the_order_of_the_peers_does_not_matter(
    peers: np.ndarray, reduction: int, random: np.random.Generator
) -> None:
    order = list(range(len(peers)))
    random.shuffle(order)

    assert keeps(peers[order], reduction).tolist() == keeps(peers, reduction)[order].tolist()


@example(
    np.array([(0.05, 1.0)] * 3 + [(0.75, 2.0), (0.85, 10.0), (0.95, 1.0)]), 2
)  # the contributions of two are equal, but for rounding
@given(points, reductions)
@settings(deadline=None)
def test_neither_unit_of_the_axes_matters(peers: np.ndarray, reduction: int) -> None:
    factors, shifts = np.full(peers.shape[1], 1e6), np.zeros(peers.shape[1])
    factors[0], shifts[0] = 0.5, 0.1
    scaled = peers * factors + shifts

    assert keeps(scaled, reduction).tolist() == keeps(peers, reduction).tolist()


def test_ties_of_rank_go_to_the_larger_hypervolume_contribution() -> None:
    """Rank 1 has three rows and room for one; the middle one adds next to nothing."""
    first = [(0.9, 1.0)]
    second = [(0.8, 1.5), (0.81, 3.0), (0.85, 3.1)]
    peers = np.array(first + second)

    assert keeps(peers, 2).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("epoch", "grace_period", "reduction_factor", "expected"),
    [
        (1, 1, 3, True),
        (2, 1, 3, False),
        (3, 1, 3, True),
        (9, 1, 3, True),
        (10, 1, 3, False),
        (243, 1, 3, True),
        (1000, 1, 10, True),
        (4, 4, 2, True),
        (3, 4, 2, False),
        (8, 4, 2, True),
    ],
)
def test_rungs(epoch: int, grace_period: int, reduction_factor: int, expected: bool) -> None:
    assert is_rung(epoch, grace_period, reduction_factor) is expected


def study_of(curves: list[tuple[float, list[float]]]) -> optuna.Study:
    """A study with a running trial for each (MACs, curve)."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    for macs, curve in curves:
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                user_attrs={"macs": macs},
                intermediate_values=dict(enumerate(curve, start=1)),
            )
        )
    return study


def decide(study: optuna.Study, number: int, **arguments: Any) -> bool:
    trial: FrozenTrial = study.trials[number]
    return MultiObjectiveAsha(**arguments).prune(study, trial)


def test_nobody_is_stopped_between_rungs_or_without_peers() -> None:
    study = study_of([(1.0, [0.9, 0.9]), (1.0, [0.8, 0.8]), (1.0, [0.1, 0.1]), (2.0, [0.0])])

    assert not decide(study, 2, grace_period=1, reduction_factor=3, min_trials=3)
    assert decide(study, 3, grace_period=1, reduction_factor=3, min_trials=3)
    assert not decide(study, 3, grace_period=1, reduction_factor=3, min_trials=5)
    assert decide(study, 2, grace_period=2, reduction_factor=3, min_trials=3)


def test_late_epochs_never_enter_low_rungs() -> None:
    """The peers are far along and good by now; at epoch 1 they were worse than the newcomer."""
    study = study_of([(1.0, [0.1, 0.9, 0.9]), (1.0, [0.1, 0.9, 0.9]), (1.0, [0.2])])

    assert not decide(study, 2, grace_period=1, reduction_factor=3, min_trials=3)


def test_the_cheap_end_of_the_front_is_not_stopped() -> None:
    study = study_of([(9.0, [0.9]), (8.0, [0.8]), (7.0, [0.7]), (1.0, [0.1])])

    assert not decide(study, 3, grace_period=1, reduction_factor=4, min_trials=2)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 10)), min_size=4, max_size=12))
@settings(deadline=None, max_examples=30)
def test_a_restart_decides_the_same_on_the_same_ledger(rows: list[tuple[int, int]]) -> None:
    curves = [(float(macs), [accuracy / 10]) for macs, accuracy in rows]
    before, after = study_of(curves), study_of(curves)
    MultiObjectiveAsha(grace_period=1).prune(before, before.trials[0])

    for number in range(len(rows)):
        verdicts = {
            decide(study, number, grace_period=1, min_trials=2) for study in (before, after)
        }
        assert len(verdicts) == 1


@pytest.mark.parametrize(
    "wrong", [{"costs": ()}, {"grace_period": 0}, {"reduction_factor": 1}, {"min_trials": 0}]
)
def test_arguments_have_least_values(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is .* must"):
        MultiObjectiveAsha(**wrong)
