"""The choices that make up an architecture, as columns that can be compared over trials."""

from __future__ import annotations

from pandas import DataFrame

from afi_search.space.architecture import OFF, Architecture

NO_ATTENTION = "none"


def choices_of(architecture: Architecture) -> dict[str, str]:
    """Return what was chosen, by names like `stage 2 ratio`.

    A stage without AFI has a width, `off`, and nothing else.
    """
    chosen: dict[str, str] = {}
    for number, choice in enumerate(architecture.stages, start=1):
        stage = f"stage {number}"
        if choice is None:
            chosen[f"{stage} width"] = OFF
            continue
        chosen[f"{stage} width"] = choice.width
        chosen[f"{stage} ratio"] = str(choice.ratio)
        chosen[f"{stage} attention"] = choice.attention or NO_ATTENTION
        chosen[f"{stage} scorer"] = choice.scorer
    return chosen


def choice_table(records: DataFrame) -> DataFrame:
    """Return a row of choices for each trial, with the trials' index; what does not apply is NaN.

    Choices in which the trials do not differ are left out.

    Raises:
        ArchitectureError, UnknownBackbone: an architecture's text cannot be read.
    """
    rows = [choices_of(Architecture.parse(text)) for text in records["architecture"]]
    table = DataFrame(rows, index=records.index)
    names = sorted(table.columns, key=_order)
    return table[[name for name in names if table[name].nunique(dropna=False) > 1]]


def levels_of(table: DataFrame, name: str) -> list[str]:
    """Return the levels of a choice that occur, numbers by size and `off` and `none` first."""
    return sorted(table[name].dropna().unique(), key=_level_order)


def _order(name: str) -> tuple[int, int]:
    _, stage, axis = name.split()
    return int(stage), ("width", "ratio", "attention", "scorer").index(axis)


def _level_order(level: str) -> tuple[bool, int, str]:
    return level not in (OFF, NO_ATTENTION), int(level) if level.isdigit() else 0, level
