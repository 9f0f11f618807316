"""Which points of a front survive, by the accuracies of several seeds.

The spread between seeds is taken to be the same for all architectures of a confirmation, which is
what makes three seeds informative: it is pooled over all of them, and so are its
degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from scipy.stats import t as student

Verdict = Literal["stands", "unrivalled", "open", "tied", "beaten"]
LEVEL = 0.05


@dataclass(frozen=True)
class Point:
    """What one architecture reached: MACs per image, and an accuracy (0 to 1) a seed."""

    macs: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.accuracies)


@dataclass(frozen=True)
class Spread:
    """The standard deviation of one training's accuracy, and its degrees of freedom."""

    deviation: float
    freedom: int

    @property
    def is_known(self) -> bool:
        """Whether it is: where all seeds reach the same, as at chance level, they do not tell."""
        return self.freedom > 0 and self.deviation > 1e-9


def pooled_spread(points: Sequence[Point]) -> Spread:
    """Return the spread within architectures, all their degrees of freedom together."""
    freedom = sum(len(point.accuracies) - 1 for point in points)
    squares = sum((a - point.mean) ** 2 for point in points for a in point.accuracies)
    return Spread(math.sqrt(squares / freedom) if freedom else math.nan, freedom)


def interval(point: Point, spread: Spread) -> tuple[float, float]:
    """Return the 95 % interval of an architecture's mean over seeds (Student's t).

    >>> low, high = interval(point := Point(10, (0.70, 0.72, 0.71)), pooled_spread([point]))
    >>> f"{low:.3f} to {high:.3f}"
    '0.685 to 0.735'
    """
    if not spread.is_known:
        return math.nan, math.nan
    half = float(student.ppf(1 - LEVEL / 2, spread.freedom)) * spread.deviation
    half /= math.sqrt(len(point.accuracies))
    return point.mean - half, point.mean + half


def verdicts(points: Sequence[Point]) -> list[Verdict]:
    """Judge each point against all others that are as cheap or cheaper, at a level of 5 %.

    `stands`: more accurate than every one of them, each by a one-sided t-test. All have to succeed,
    so the level needs no correction (intersection-union test; Berger 1982). `beaten`: one of them
    is more accurate, at the level divided by their number (Bonferroni). `unrivalled`: nothing is as
    cheap. `tied`: the best of them is exactly as accurate. `open`: more seeds may tell.

    >>> verdicts([Point(10, (0.70, 0.71)), Point(20, (0.80, 0.81)), Point(30, (0.75, 0.76))])
    ['unrivalled', 'stands', 'beaten']
    """
    spread = pooled_spread(points)
    return [
        _verdict(point, [p for p in points if p is not point and p.macs <= point.macs], spread)
        for point in points
    ]


def _verdict(point: Point, rivals: Sequence[Point], spread: Spread) -> Verdict:
    if not rivals:
        return "unrivalled"
    if all(chance_better(point, rival, spread) < LEVEL for rival in rivals):
        return "stands"
    corrected = LEVEL / len(rivals)
    if any(chance_better(rival, point, spread) < corrected for rival in rivals):
        return "beaten"
    return "tied" if math.isclose(max(r.mean for r in rivals), point.mean) else "open"


def chance_better(point: Point, other: Point, spread: Spread) -> float:
    """Return the p-value of `point` being more accurate than `other`: small where it is."""
    difference = point.mean - other.mean
    if not spread.is_known:
        return 1.0
    error = spread.deviation * math.sqrt(1 / len(point.accuracies) + 1 / len(other.accuracies))
    return float(student.sf(difference / error, spread.freedom))
