from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afi_search.engine.capacity import Capacity, Node, plan_promotion, plan_trials
from afi_search.engine.ray_session import EngineError
from afi_search.space.schema import Search

NODES = st.lists(st.builds(Node, st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("settings", "cpus", "gpus", "expected"),
    [
        ({}, 2, 0, Capacity(2, 1, 0.0)),
        ({"concurrency": 1}, 8, 0, Capacity(1, 8, 0.0)),
        ({"concurrency": 16}, 4, 0, Capacity(4, 1, 0.0)),
        ({"trials": 1}, 8, 0, Capacity(1, 8, 0.0)),
        ({}, 16, 4, Capacity(4, 4, 1.0)),
        ({"gpus_per_trial": 0.5}, 16, 1, Capacity(2, 8, 0.5)),
        ({"gpus_per_trial": 0.5, "concurrency": 8}, 16, 1, Capacity(2, 8, 0.5)),
        ({"gpus_per_trial": 0.3}, 16, 1, Capacity(3, 5, 0.3)),
        ({}, 2, 4, Capacity(2, 1, 1.0)),
    ],
)
def test_cores_and_gpus_are_shared_out(
    settings: dict[str, float], cpus: int, gpus: int, expected: Capacity
) -> None:
    assert plan_trials(Search(**settings), [Node(cpus, gpus)]) == expected


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([Node(4, 0), Node(8, 1)], Capacity(1, 8, 1.0)),
        ([Node(8, 2), Node(16, 2)], Capacity(4, 4, 1.0)),
        ([Node(4, 0), Node(2, 0)], Capacity(6, 1, 0.0)),
    ],
)
def test_a_trial_fits_on_every_node_it_may_use(nodes: list[Node], expected: Capacity) -> None:
    assert plan_trials(Search(), nodes) == expected


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([Node(16, 8)], None, Capacity(8, 2, 1.0)),
        ([Node(16, 2), Node(8, 2)], None, Capacity(4, 4, 1.0)),
        ([Node(64, 0), Node(8, 2)], None, Capacity(2, 4, 1.0)),
        ([Node(32, 4), Node(2, 4)], 5, Capacity(5, 2, 1.0)),
        ([Node(4, 0)], None, Capacity(1, 4, 0.0)),
        ([Node(4, 0)], 2, Capacity(2, 2, 0.0)),
        ([Node(5, 0), Node(1, 0)], 2, Capacity(2, 2, 0.0)),
        ([Node(3, 0), Node(3, 0)], 2, Capacity(2, 3, 0.0)),
    ],
)
def test_workers_get_the_most_cores_with_which_all_have_room(
    nodes: list[Node], workers: int | None, expected: Capacity
) -> None:
    assert plan_promotion(workers, nodes) == expected


@given(NODES, st.integers(1, 64))
def test_what_is_planned_fits_on_the_nodes(nodes: list[Node], workers: int) -> None:
    try:
        capacity = plan_promotion(workers, nodes)
    except EngineError:
        return
    cores = capacity.threads
    on = [
        min(node.cpus // cores, node.gpus) if capacity.gpus else node.cpus // cores
        for node in nodes
    ]
    assert sum(on) >= workers == capacity.concurrency
    assert cores >= 1


@pytest.mark.parametrize(
    ("nodes", "workers", "message"),
    [
        ([Node(8, 2)], 3, "--workers 3: there is room for 2 here, one a GPU"),
        ([Node(1, 8)], 2, "there is room for 1 here"),
        ([Node(2, 0), Node(1, 0)], 4, "--workers 4: there is room for 3 here, one a CPU core"),
        ([], None, "there is room for 0"),
    ],
)
def test_more_workers_than_there_is_room_for_are_told(
    nodes: list[Node], workers: int | None, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        plan_promotion(workers, nodes)
