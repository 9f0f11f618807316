from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afi_search.engine.tune import Node
from afi_search.engine.worker_layout import NoRoom, Place, plan_place

NODES = st.lists(st.builds(Node, st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("nodes", "workers", "place"),
    [
        ([Node(16, 8)], None, Place(8, 2, True)),
        ([Node(16, 2), Node(8, 2)], None, Place(4, 4, True)),
        ([Node(64, 0), Node(8, 2)], None, Place(2, 4, True)),
        ([Node(32, 4), Node(2, 4)], 5, Place(5, 2, True)),
        ([Node(4, 0)], None, Place(1, 4, False)),
        ([Node(4, 0)], 2, Place(2, 2, False)),
        ([Node(5, 0), Node(1, 0)], 2, Place(2, 2, False)),
        ([Node(3, 0), Node(3, 0)], 2, Place(2, 3, False)),
    ],
)
def test_workers_get_the_most_cores_with_which_all_have_room(
    nodes: list[Node], workers: int | None, place: Place
) -> None:
    assert plan_place(nodes, workers) == place


@given(NODES, st.integers(1, 64))
def test_what_is_planned_fits_on_the_nodes(nodes: list[Node], workers: int) -> None:
    try:
        place = plan_place(nodes, workers)
    except NoRoom:
        return
    on = [
        min(node.cpus // place.cores, node.gpus) if place.on_gpu else node.cpus // place.cores
        for node in nodes
    ]
    assert sum(on) >= workers == place.workers
    assert place.cores >= 1


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
    with pytest.raises(NoRoom, match=message):
        plan_place(nodes, workers)
