"""Which stage wants AFI: what it changes there, all other stages being equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame
from scipy.stats import t as student

from afi_search.space.architecture import OFF, Architecture
from afi_search.study.pareto import comparable

FEWEST_SPARE = 5


@dataclass(frozen=True)
class StageEffect:
    """What AFI of one width changes in one stage, against that stage without it.

    Attributes:
        stage: its number, from 1.
        width: `base` or `B`.
        trials: how many trials have it.
        accuracy: the change of accuracy, 0 to 1.
        error: half of the 95 % interval around it.
        macs: the change of MACs per image.
    """

    stage: int
    width: str
    trials: int
    accuracy: float
    error: float
    macs: float


def stage_effects(records: DataFrame) -> list[StageEffect]:
    """Estimate the effect of AFI by stage and width from the trials of full fidelity.

    A linear model, accuracy = plain + one effect a stage and width, is fitted by least squares, so
    that what the other stages of a trial have is taken account of; ratio, attention and scorer
    count as noise. Its interval rests on normal errors of equal size.

    Args:
        records: the ledger's trials, all of one backbone.

    Returns:
        The effects by stage and width; empty where there are too few trials, or too like ones, to
        tell them apart. A stage that never was off in a trial has none.

    Raises:
        ValueError: a column is missing.
    """
    full = comparable(records)
    if full.empty:
        return []
    widths = np.array([_widths(text) for text in full["architecture"]])
    terms = [
        (stage, width)
        for stage in range(widths.shape[1])
        for width in _other_levels(list(widths[:, stage]))
    ]
    columns = [widths[:, stage] == width for stage, width in terms]
    design = np.column_stack([np.ones(len(full)), *columns]).astype(float)
    spare = design.shape[0] - design.shape[1]
    if not terms or spare < FEWEST_SPARE or np.linalg.matrix_rank(design) < design.shape[1]:
        return []
    accuracy = full["accuracy"].to_numpy(dtype=float)
    inverse = np.linalg.inv(design.T @ design)
    effects = inverse @ design.T @ accuracy
    macs = inverse @ design.T @ full["macs"].to_numpy(dtype=float)
    variance = float(((accuracy - design @ effects) ** 2).sum()) / spare
    errors = student.ppf(0.975, spare) * np.sqrt(variance * np.diag(inverse))
    return [
        StageEffect(
            stage=stage + 1,
            width=width,
            trials=int(column.sum()),
            accuracy=float(effects[position]),
            error=float(errors[position]),
            macs=float(macs[position]),
        )
        for position, ((stage, width), column) in enumerate(
            zip(terms, columns, strict=True), start=1
        )
        if OFF in widths[:, stage]
    ]


def _widths(architecture: str) -> list[str]:
    stages = Architecture.parse(architecture).stages
    return [OFF if choice is None else choice.width for choice in stages]


def _other_levels(levels: Sequence[str]) -> list[str]:
    """Return the levels but the one the others are compared with: off, or the first there is."""
    present = sorted(set(levels), key=lambda level: (level != OFF, level != "base"))
    return present[1:]
