from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from afi_search.cost import CostTable, SpaceCosts, measure
from afi_search.cost.cost import Cost, Count, Parts
from afi_search.cost.space_costs import count_below
from afi_search.cost.table import measure_choices
from afi_search.errors import UserError
from afi_search.search.prepare import require_feasible
from afi_search.space import Architecture, Space, SpaceFileError
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


ALL = {"all": {"width": ["off", "base", "B"], "ratio": [4]}}


@pytest.fixture(scope="module")
def measured() -> dict[Architecture, Cost]:
    """The costs of each architecture of ALL, measured one by one."""
    sizes = {"num_classes": CLASSES, "image_size": PIXELS, "batch_size": 32}
    space = Space(space_file(stages=ALL))
    return {a: measure(a, **sizes) for a in space.architectures()}


def test_costs_feasibility_and_extremes_are_those_of_every_single_architecture(
    measured: dict[Architecture, Cost],
) -> None:
    costs = costs_of(stages=ALL, constraints={"macs": "38M", "params": 300_000})
    allowed = [c for c in measured.values() if c.macs <= 38_000_000 and c.params <= 300_000]

    assert all(costs.of(a) == replace(cost, memory=None) for a, cost in measured.items())
    assert costs.feasible == len(allowed)
    assert 0 < len(allowed) < len(measured)
    cheapest, dearest = costs.extremes()
    sizes = {a: (c.macs, c.params) for a, c in measured.items()}
    assert sizes[cheapest] == min(sizes.values())
    assert sizes[dearest] == max(sizes.values())


def test_a_list_of_architectures_is_measured_one_by_one() -> None:
    texts = ["resnet20", "resnet32(base-r4)", "resnet20(B-r16)"]
    costs = costs_of(architectures=texts, backbone=None, stages={}, constraints={"params": 300_000})

    assert costs.feasible == 1
    assert [str(a) for a in costs.extremes()] == ["resnet20", "resnet32(base-r4)"]


def test_memory_is_counted_where_it_is_asked_for_and_limits_like_macs(
    measured: dict[Architecture, Cost],
) -> None:
    memories = {a: cost.memory or 0 for a, cost in measured.items()}
    limit = sorted(memories.values())[11]
    recipe = {"epochs": 9, "batch_size": 32}
    costs = costs_of(stages=ALL, constraints={"memory": limit}, recipe=recipe)

    assert all(costs.of(a).memory == memory for a, memory in memories.items())
    assert 0 < sum(memory <= limit for memory in memories.values()) < len(memories)
    assert costs.feasible == sum(memory <= limit for memory in memories.values())
    assert memories[costs.least("memory")] == min(memories.values())
    assert costs_of().of(costs.space[0]).memory is None


def made_up_time(architecture: Architecture) -> Parts:
    """A stage's time depends on what is chosen in it; 1 ms goes to the rest of the network."""
    stages = [1_000_000 + 1_000 * len(str(choice)) for choice in architecture.stages]
    return Parts(
        Count(latency=1_000_000 + sum(stages)), tuple(Count(latency=stage) for stage in stages)
    )


def test_latency_adds_up_over_stages_and_limits_like_macs() -> None:
    space = Space(space_file(constraints={"latency": 4.035}))
    timed = measure_choices("resnet20", space.stage_choices, made_up_time)
    costs = SpaceCosts(space, num_classes=CLASSES, image_size=PIXELS, kept=timed)
    expected = {a: made_up_time(a).whole.latency / 1e6 for a in space.architectures()}

    assert {a: costs.of(a).latency for a in expected} == expected
    allowed = [a for a in expected if costs.allow(costs.of(a))]
    assert costs.feasible == len(allowed) == sum(ms <= 4.035 for ms in expected.values())
    assert 0 < len(allowed) < space.size
    assert expected[costs.least("latency")] == min(expected.values())
    assert costs.of(space[7]).macs == costs_of().of(space[7]).macs


def test_latency_is_measured_by_running_the_networks_and_kept_with_the_study(
    tmp_path: Path,
) -> None:
    search = {"first": ["resnet20(B-r2, off, off)"]}
    space = Space(space_file(objectives=["accuracy", "latency"], search=search))
    said: list[str] = []

    table = SpaceCosts(space, num_classes=10, image_size=32, progress=said.append).table

    assert 4 < len(said) < 10, "one network for many choices"
    times = [table.of(a).latency for a in (*space.architectures(), *space.first_to_try)]
    assert all(100_000 < nanoseconds < 10**10 for nanoseconds in times)
    assert CostTable.read(tmp_path) is None
    table.write(tmp_path)
    kept = CostTable.read(tmp_path)
    assert kept == table
    said.clear()
    assert SpaceCosts(space, num_classes=10, image_size=32, kept=kept, progress=said.append).table
    assert not said
    (tmp_path / "costs.json").write_text("[]")
    with pytest.raises(UserError, match="remove it"):
        CostTable.read(tmp_path)


def test_latencies_of_a_study_begun_when_they_alone_were_kept_are_taken_over(
    tmp_path: Path,
) -> None:
    space = Space(
        space_file(
            backbone=None,
            stages={},
            architectures=["resnet20", "resnet20(B-r4)"],
            objectives=["accuracy", "latency"],
        )
    )
    (tmp_path / "latency.json").write_text(
        '{"device": "a machine", "networks": {"resnet20": 1000000, "resnet20(B-r4)": 2000000},'
        ' "stages": []}'
    )

    kept = CostTable.read(tmp_path)
    costs = SpaceCosts(space, num_classes=CLASSES, image_size=PIXELS, kept=kept)

    assert [costs.of(a).latency for a in space.architectures()] == [1, 2]
    assert costs.table.device == "a machine"
    assert all(costs.of(a).macs > 10**6 for a in space.architectures())


def test_what_a_study_has_counted_is_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs_of(constraints={"memory": "1G"}).table.write(tmp_path)
    monkeypatch.setattr("afi_search.cost.counts.count", None)
    space = Space(space_file(constraints={"memory": "1G"}))
    kept = CostTable.read(tmp_path)

    costs = SpaceCosts(space, num_classes=CLASSES, image_size=PIXELS, kept=kept)

    assert costs.feasible == space.size
    assert costs.table is kept


@pytest.mark.parametrize(
    "changes", [{"constraints": {"memory": "1G"}}, {"search": {"first": ["resnet20(B-r2)"]}}]
)
def test_a_kept_table_that_lacks_a_cost_or_a_choice_is_not_enough(
    changes: dict[str, object],
) -> None:
    kept = costs_of(constraints={"macs": "1G"}).table
    space = Space(space_file(**changes))
    asked = (space[3], *space.first_to_try)

    costs = SpaceCosts(space, num_classes=CLASSES, image_size=PIXELS, kept=kept)

    assert [costs.of(a) for a in asked] == [costs_of(**changes).of(a) for a in asked]
    assert costs.table is not kept


def test_the_target_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    costs = costs_of(objectives=["accuracy", "latency"], target={"device": "cuda"})
    with pytest.raises(UserError, match="no CUDA device"):
        costs.of(costs.space[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"constraints": {"macs": "1M"}},
            r"none of the 125 architectures keeps macs 1,000,000 \(the least is .*, of resnet20",
        ),
        (
            {"constraints": {"params": 280_000}, "search": {"first": ["resnet20(B-r4)"]}},
            r"search\.first: resnet20\(B-r4\) has params .*, over 280,000; take it out",
        ),
    ],
)
def test_what_cannot_be_tried_is_told_before_anything_starts(
    changes: dict[str, object], said: str, tmp_path
) -> None:
    with pytest.raises(SpaceFileError, match=said):
        require_feasible(tmp_path / "space.yaml", costs_of(**changes))
