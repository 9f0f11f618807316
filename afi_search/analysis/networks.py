"""The trained networks that are analysed: trials of a study and its plain backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pandas import DataFrame
from torch import nn

from afi_search.errors import UserError
from afi_search.model.from_checkpoint import NoCheckpoint, trial_model, trial_state
from afi_search.nn import Block, searched_stages
from afi_search.space import Architecture
from afi_search.study import Ledger

MOST = 3


class AnalysisError(UserError):
    """These trials cannot be analysed, or not together."""


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


@dataclass(frozen=True)
class AnalysedModel:
    """A trained network.

    Attributes:
        number: of its trial.
        architecture: of the network.
        accuracy: on the validation images after its last epoch, 0 to 1.
        epochs: trained.
        model: in eval mode.
    """

    number: int
    architecture: Architecture
    accuracy: float
    epochs: int
    model: nn.Module

    @property
    def facts(self) -> str:
        """The trial and its accuracy."""
        return (
            f"trial {self.number}: {100 * self.accuracy:.1f} % of the validation images after "
            f"{self.epochs} epochs"
        )

    @property
    def title(self) -> str:
        """The architecture, the trial and its accuracy, in a line."""
        return f"{self.architecture}, {self.facts}"


def load_models(study: Path, asked: Sequence[str]) -> list[AnalysedModel]:
    """Return the trials that are asked for, the study's plain backbone before them.

    Args:
        study: the study's folder.
        asked: numbers of trials or architectures, one or two; none: the most accurate trial with
            AFI.

    Raises:
        AnalysisError: there is no such trial, or they are of several backbones, or too many.
        NoCheckpoint: a trial's weights are not there.
        CorruptCheckpoint: they cannot be read.
    """
    ledger = Ledger.open(study)
    records = ledger.records()
    trained = records[records["epochs"] > 0]
    return [_load(study, ledger, trained, number) for number in choose(trained, asked, str(study))]


def choose(trained: DataFrame, asked: Sequence[str], study: str) -> list[int]:
    """Return the numbers of the trials to analyse, the plain backbone's first.

    Args:
        trained: records of trials that have been trained at least an epoch.
        asked: as in `load_models`.
        study: what to call the study.

    Raises:
        AnalysisError: as in `load_models`.
    """
    if trained.empty:
        raise AnalysisError(f"{study}: no trial has been trained yet; there is nothing to analyse")
    rows = [_find(trained, what, study) for what in asked] or [_best(trained)]
    backbones = list(dict.fromkeys(row["backbone"] for row in rows))
    if len(backbones) > 1:
        raise AnalysisError(
            f"trials: {', '.join(asked)}: are of several backbones ({', '.join(backbones)}), whose "
            f"blocks cannot be set side by side; name trials of one"
        )
    plain = _plain(trained, backbones[0])
    chosen = list(dict.fromkeys([*plain, *(int(row["number"]) for row in rows)]))
    if len(chosen) > MOST:
        raise AnalysisError(
            f"trials: {', '.join(asked)}: are too many to compare; name one or two, the plain "
            f"{backbones[0]} is added by itself"
        )
    return chosen


def _find(trained: DataFrame, what: str, study: str) -> dict[str, Any]:
    if what.isdigit():
        found = trained[trained["number"] == int(what)]
        missing = f"there is no trial {what} that has been trained"
    else:
        found = trained[trained["architecture"] == Architecture.parse(what).text]
        missing = f"no trial of {what} has been trained"
    if found.empty:
        known = ", ".join(map(str, trained["number"].head(20)))
        raise AnalysisError(f"{study}: {missing}; there are trials {known}")
    return _most_trained(found)


def _best(trained: DataFrame) -> dict[str, Any]:
    """Return the most accurate trial with AFI of those trained longest; else of the plain ones."""
    with_afi = trained[trained["architecture"] != trained["backbone"]]
    among = trained if with_afi.empty else with_afi
    return _most_trained(among[among["epochs"] == among["epochs"].max()])


def _plain(trained: DataFrame, backbone: str) -> list[int]:
    found = trained[trained["architecture"] == backbone]
    return [] if found.empty else [int(_most_trained(found)["number"])]


def _most_trained(rows: DataFrame) -> dict[str, Any]:
    """Return the row of the most epochs, of these the most accurate."""
    ordered = rows.sort_values(["epochs", "accuracy"], ascending=False)
    return dict(ordered.iloc[0])


def _load(study: Path, ledger: Ledger, trained: DataFrame, number: int) -> AnalysedModel:
    row = trained[trained["number"] == number].iloc[0]
    try:
        state = trial_state(study, number)
    except NoCheckpoint as error:
        raise NoCheckpoint(
            f"{error}; its weights are not kept. Name another trial, or train it again"
        ) from None
    return AnalysedModel(
        number,
        Architecture.parse(row["architecture"]),
        float(row["accuracy"]),
        int(row["epochs"]),
        trial_model(study, ledger, number, state).module,
    )
