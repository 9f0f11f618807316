from __future__ import annotations

import pytest

from afi_search.engine.tune import Capacity, Node, plan_capacity
from afi_search.space.schema import Search


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
    assert plan_capacity(Search(**settings), [Node(cpus, gpus)]) == expected


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([Node(4, 0), Node(8, 1)], Capacity(1, 8, 1.0)),
        ([Node(8, 2), Node(16, 2)], Capacity(4, 4, 1.0)),
        ([Node(4, 0), Node(2, 0)], Capacity(6, 1, 0.0)),
    ],
)
def test_a_trial_fits_on_every_node_it_may_use(nodes: list[Node], expected: Capacity) -> None:
    assert plan_capacity(Search(), nodes) == expected
