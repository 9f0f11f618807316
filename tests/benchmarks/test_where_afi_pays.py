"""What AFI-Bench-16 says of placements, on tables whose truth is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from afi_search.space import Architecture
from benchmarks.afi_bench import WIDTHS
from benchmarks.where_afi_pays import agreement, effects, last_epoch, networks, rivals

POINTS = {"off": 0.0, "base-r4": -0.5, "B-r16": 1.0}
STAGES = (0.2, -0.5, 1.0)
"""How much of a choice's points each stage gives."""


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """27 networks x 3 seeds x 2 epochs; the first epoch says nothing of the last."""
    draw = np.random.default_rng(0)
    rows = []
    for chosen, seed in product(product(WIDTHS, repeat=3), range(3)):
        architecture = Architecture("resnet20", chosen)
        gain = sum(
            of * POINTS[text] for of, text in zip(STAGES, architecture.choice_texts, strict=True)
        )
        last = (50 + gain + 0.2 * seed + draw.normal(scale=0.05)) / 100
        for epoch, accuracy in ((1, draw.random()), (2, last)):
            rows.append(
                {
                    "architecture": architecture.text,
                    "seed": seed,
                    "epoch": epoch,
                    "validation_accuracy": accuracy,
                    "test_accuracy": accuracy,
                    "macs": 10**7 + 10**6 * architecture.choice_texts.count("B-r16"),
                }
            )
    return pd.DataFrame(rows)


def test_effects_are_told_with_intervals_that_hold_them(table: pd.DataFrame) -> None:
    found = effects(last_epoch(table))

    assert len(found) == 6
    for row in found.to_dict("records"):
        truth = STAGES[row["stage"] - 1] * POINTS[row["choice"]]
        assert row["low"] - 0.02 < truth < row["high"] + 0.02
        assert row["high"] - row["low"] < 0.15


def width(found: pd.DataFrame, model: str) -> float:
    of = found.xs(model, level="model")
    return float((of["high"] - of["low"]).mean())


def test_rivals_cost_no_more_and_are_valued_with_the_seeds_they_have(table: pd.DataFrame) -> None:
    trainings = last_epoch(table)
    means, own = networks(trainings)
    assert (means["seeds"] == 3).all()
    assert (means["high"] - means["low"]).mean() / 4 == pytest.approx(0.05 / np.sqrt(3), rel=0.2)

    found = rivals(trainings, means, own).set_index(["placement", "network", "model"])

    assert (found["macs"] <= 1).all()
    for model in ("own trainings", "additive"):
        better = found.xs(("B-r16", "resnet20(B-r16, base-r4, B-r16)", model))
        assert better["low"] < 0.75 < better["high"] and better["certainty"] > 0.999
        worse = found.xs(("B-r16", "resnet20(off, base-r4, off)", model))
        assert worse["high"] < 0 and worse["certainty"] < 0.001
    assert width(found, "additive") < 0.6 * width(found, "own trainings")


def test_a_network_with_one_seed_is_compared_as_if_it_had_all(table: pd.DataFrame) -> None:
    """The seeds' common part, 0.2 points a seed, is no network's own."""
    name = "resnet20(B-r16, off, B-r16)"
    fewer = table[(table["architecture"] != name) | (table["seed"] == 2)]

    means, _ = networks(last_epoch(fewer))

    assert means.loc[name, "seeds"] == 1
    assert means.loc[name, "points"] == pytest.approx(50 + 0.2 + 0.2 + 1.0, abs=0.15)


def test_the_order_agrees_at_the_end_and_not_before(table: pd.DataFrame) -> None:
    first, last = agreement(table).to_dict("records")

    assert first["low"] < 0 < first["high"]
    assert last["tau"] == pytest.approx(1)
