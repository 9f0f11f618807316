from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from afi_search.cost import measure
from afi_search.search.checks import demand_feasible
from afi_search.search.costs import SpaceCosts, count_below
from afi_search.space import Space, SpaceFileError
from tests.search.studies import CLASSES, PIXELS, space_file

parts = st.lists(
    st.integers(1, 4).flatmap(lambda rows: arrays(np.int64, (rows, 2), elements=st.integers(0, 9))),
    min_size=1,
    max_size=5,
)


@given(parts, st.integers(0, 30), st.integers(0, 30))
@settings(deadline=None)
def test_counting_is_what_enumeration_gives(parts: list[np.ndarray], one: int, other: int) -> None:
    bounds = np.array([one, other])
    sums = np.zeros((1, 2), dtype=np.int64)
    for part in parts:
        sums = np.array([row + more for row in sums for more in part])

    assert count_below(parts, bounds) == sum(bool((row <= bounds).all()) for row in sums)


def costs_of(**changes: object) -> SpaceCosts:
    return SpaceCosts(Space(space_file(**changes)), num_classes=CLASSES, image_size=PIXELS)


def test_costs_feasibility_and_extremes_are_those_of_every_single_architecture() -> None:
    costs = costs_of(constraints={"macs": "38M", "params": 300_000})
    measured = {
        a: measure(a, num_classes=CLASSES, image_size=PIXELS) for a in costs.space.architectures()
    }
    allowed = [c for c in measured.values() if c.macs <= 38_000_000 and c.params <= 300_000]

    assert all(costs.of(a) == cost for a, cost in measured.items())
    assert costs.feasible == len(allowed) < len(measured)
    cheapest, dearest = costs.extremes()
    sizes = {a: (c.macs, c.params) for a, c in measured.items()}
    assert sizes[cheapest] == min(sizes.values())
    assert sizes[dearest] == max(sizes.values())


def test_a_list_of_architectures_is_measured_one_by_one() -> None:
    texts = ["resnet20", "resnet32(base-r4)", "resnet20(B-r16)"]
    costs = costs_of(architectures=texts, backbone=None, stages={}, constraints={"params": 300_000})

    assert costs.feasible == 1
    assert [str(a) for a in costs.extremes()] == ["resnet20", "resnet32(base-r4)"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"constraints": {"macs": "1M"}}, "none of the 125 architectures keeps macs 1,000,000"),
        (
            {"constraints": {"params": 280_000}, "search": {"first": ["resnet20(B-r4)"]}},
            r"search\.first: resnet20\(B-r4\) has macs .* over the constraints",
        ),
    ],
)
def test_what_cannot_be_tried_is_told_before_anything_starts(
    changes: dict[str, object], said: str, tmp_path
) -> None:
    with pytest.raises(SpaceFileError, match=said):
        demand_feasible(tmp_path / "space.yaml", costs_of(**changes))
