from __future__ import annotations

import itertools
import random

import pytest
from pandas import DataFrame

from afi_search.report.stages import stage_effects
from tests.report.synthetic_records import empty, record

TRUE = {
    (1, "base"): (-0.01, -5e6),
    (1, "B"): (0.0, 9e6),
    (2, "base"): (0.005, -4e6),
    (2, "B"): (0.02, 8e6),
    (3, "base"): (0.03, -3e6),
    (3, "B"): (0.04, 7e6),
}
WIDTHS = ("off", "base-r4", "B-r16")


def trials(noise: float = 0.0, widths: tuple[str, ...] = WIDTHS) -> list[dict[str, object]]:
    """All combinations of widths, with accuracies that add up from TRUE."""
    draw = random.Random(1)
    rows = []
    for number, choice in enumerate(itertools.product(widths, repeat=3)):
        effects = [
            TRUE[stage, width.partition("-")[0]]
            for stage, width in enumerate(choice, start=1)
            if width != "off"
        ]
        rows.append(
            record(
                number,
                0.6 + sum(gain for gain, _ in effects) + draw.gauss(0, noise),
                70e6 + sum(macs for _, macs in effects),
                architecture=f"resnet32({', '.join(choice)})",
            )
        )
    return rows


def test_effects_that_add_up_are_found_exactly() -> None:
    found = stage_effects(DataFrame(trials()))
    assert [(effect.stage, effect.width) for effect in found] == list(TRUE)
    for effect in found:
        accuracy, macs = TRUE[effect.stage, effect.width]
        assert effect.accuracy == pytest.approx(accuracy, abs=1e-9)
        assert effect.macs == pytest.approx(macs)
        assert effect.error == pytest.approx(0, abs=1e-9)
        assert effect.trials == 9


def test_they_are_found_where_stages_are_mixed_unevenly() -> None:
    """A mean over the trials with AFI in a stage would be misled by what the other stages have."""
    rows = trials()
    uneven = [row for n, row in enumerate(rows) if n % 3 != 0 or n < 9]
    for effect in stage_effects(DataFrame(uneven)):
        assert effect.accuracy == pytest.approx(TRUE[effect.stage, effect.width][0], abs=1e-9)


def test_noise_stays_within_the_interval_it_widens() -> None:
    found = stage_effects(DataFrame(trials(noise=0.01)))
    assert all(0.004 < effect.error < 0.02 for effect in found)
    misses = [
        abs(effect.accuracy - TRUE[effect.stage, effect.width][0]) > effect.error
        for effect in found
    ]
    assert sum(misses) <= 1


def test_pruned_trials_have_no_say() -> None:
    lower = [row | {"accuracy": 0.0, "state": "pruned", "full": False} for row in trials()]
    both = DataFrame([*trials(), *lower])
    assert stage_effects(both) == stage_effects(DataFrame(trials()))


def test_a_stage_that_was_never_off_is_left_out() -> None:
    rows = [row for row in trials() if not str(row["architecture"]).startswith("resnet32(off,")]
    found = stage_effects(DataFrame(rows))
    assert {effect.stage for effect in found} == {2, 3}
    for effect in found:
        assert effect.accuracy == pytest.approx(TRUE[effect.stage, effect.width][0], abs=1e-9)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(empty(), id="no trials"),
        pytest.param(DataFrame(trials()[:8]), id="few trials"),
        pytest.param(
            DataFrame(
                [
                    record(n, 0.5 + n / 100, 7e7, architecture=name)
                    for n, name in enumerate(["resnet32", "resnet32(base-r4)"] * 10)
                ]
            ),
            id="stages always alike",
        ),
    ],
)
def test_where_stages_cannot_be_told_apart_nothing_is_said(records: DataFrame) -> None:
    assert stage_effects(records) == []
