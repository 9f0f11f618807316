"""The trained networks that are analysed: trials of a study and its plain backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pandas import DataFrame, Series
from torch import nn

from afi_search.errors import UserError
from afi_search.model import Model
from afi_search.model.from_checkpoint import NoCheckpoint, trial_model
from afi_search.nn import Block, searched_stages
from afi_search.space import Architecture
from afi_search.study.study import Study

MOST = 3


class BlockIndex(NamedTuple):
    """A block by the number of its stage and its number in the stage, both from 1."""

    stage: int
    block: int


def blocks_of(model: nn.Module) -> dict[BlockIndex, Block]:
    """Return the blocks of all searched stages, in order."""
    return {
        BlockIndex(number, index): block
        for number, stage in enumerate(searched_stages(model).values(), start=1)
        for index, block in enumerate(stage, start=1)
    }


def told(model: Model) -> str:
    """Say of which trial a network is, and its accuracy."""
    accuracy = model.facts.metrics.get("validation accuracy", math.nan)
    trial, epochs = (model.facts.training[name] for name in ("trial", "epochs"))
    return f"trial {trial}: {100 * accuracy:.1f} % of the validation images after {epochs} epochs"


def title(model: Model) -> str:
    """Name the architecture, the trial and its accuracy, in a line."""
    return f"{model.architecture}, {told(model)}"


def load_models(study: Path, asked: Sequence[str]) -> list[Model]:
    """Return the trials that are asked for, the study's plain backbone before them.

    By number or architecture, one or two; none: the most accurate trial with AFI.
    """
    opened = Study.open(study)
    records = opened.records()
    trained = records[records["epochs"] > 0].set_index("number", drop=False)
    models = []
    for number in choose(trained, asked, str(study)):
        try:
            models.append(trial_model(opened, number))
        except NoCheckpoint as error:
            raise NoCheckpoint(
                f"{error}; its weights are not kept. Name another trial, or train it again"
            ) from None
    return models


def choose(trained: DataFrame, asked: Sequence[str], study: str) -> list[int]:
    """Return the numbers of the trials to analyse, the plain backbone's first.

    Of several trials of one architecture, that of the most epochs is meant, of these the most
    accurate. `trained` are records of trials that have been trained at least an epoch.
    """
    if trained.empty:
        raise UserError(f"{study}: no trial has been trained yet; there is nothing to analyse")
    ranked = trained.sort_values(["epochs", "accuracy"], ascending=False)
    with_afi = ranked[ranked["architecture"] != ranked["backbone"]]
    best = (ranked if with_afi.empty else with_afi).iloc[0]
    rows = [_find(ranked, what, study) for what in asked] or [best]
    backbones = list(dict.fromkeys(row["backbone"] for row in rows))
    if len(backbones) > 1:
        raise UserError(
            f"trials: {', '.join(asked)}: are of several backbones ({', '.join(backbones)}), whose "
            f"blocks cannot be set side by side; name trials of one"
        )
    plain = ranked.loc[ranked["architecture"] == backbones[0], "number"].head(1)
    chosen = list(dict.fromkeys(map(int, [*plain, *(row["number"] for row in rows)])))
    if len(chosen) > MOST:
        raise UserError(
            f"trials: {', '.join(asked)}: are too many to compare; name one or two, the plain "
            f"{backbones[0]} is added by itself"
        )
    return chosen


def _find(ranked: DataFrame, what: str, study: str) -> Series:
    if what.isdigit():
        found = ranked[ranked["number"] == int(what)]
        missing = f"there is no trial {what} that has been trained"
    else:
        found = ranked[ranked["architecture"] == Architecture.parse(what).text]
        missing = f"no trial of {what} has been trained"
    if found.empty:
        known = ", ".join(map(str, ranked["number"].sort_values().head(20)))
        raise UserError(f"{study}: {missing}; there are trials {known}")
    return found.iloc[0]
