"""What a confirmation's table says, and what follows from it for a promotion."""

from __future__ import annotations

import math

import pandas as pd

from afi_search.promote.confirm_results import most_promising


def confirmed(*rows: tuple[str, float, float, str]) -> pd.DataFrame:
    """Return rows of name, mean and half interval on validation images, verdict; cheapest first."""
    table = pd.DataFrame(rows, columns=["architecture", "validation", "half", "verdict"])
    return table.assign(validation_high=table["validation"] + table["half"])


def order(*rows: tuple[str, float, float, str]) -> list[str]:
    return list(most_promising(confirmed(*rows))["architecture"])


def test_of_what_cannot_be_told_apart_the_cheapest_is_promoted() -> None:
    cheap, plain = ("resnet20(base-r4)", 0.70, 0.01), ("resnet20", 0.705, 0.01)
    assert order((*cheap, "unrivalled"), (*plain, "open"))[0] == "resnet20(base-r4)"
    assert order((*plain, "unrivalled"), (*cheap, "open"))[0] == "resnet20"


def test_what_is_clearly_more_accurate_is_promoted_whatever_it_costs() -> None:
    rows = [("a", 0.70, 0.01, "unrivalled"), ("b", 0.75, 0.01, "stands"), ("c", 0.74, 0.01, "open")]
    assert order(*rows) == ["b", "c", "a"]


def test_what_is_beaten_is_not_promoted() -> None:
    assert order(("a", 0.7, 0.01, "unrivalled"), ("b", 0.9, 0.01, "beaten")) == ["a"]


def test_without_intervals_the_most_accurate_is_promoted() -> None:
    rows = [("a", 0.1, math.nan, "unrivalled"), ("b", 0.9, math.nan, "open")]
    assert order(*rows) == ["b", "a"]
