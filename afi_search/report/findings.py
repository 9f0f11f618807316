"""What a study has found: what AFI does in each stage, which choices matter, what it all cost."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial
from pandas import DataFrame
from scipy.special import stdtrit

from afi_search.report.view import FRONT, KINDS, OTHERS, StudyView
from afi_search.space.architecture import OFF, WIDTHS, Architecture
from afi_search.space.schema import NONE
from afi_search.study.pareto import points

FEWEST_SPARE = 5
FEWEST_TRIALS = 10
RESAMPLES, MOST_RESAMPLED = 40, 300
BEST_SHARE = 0.1
FEWEST_BEST = 5
FULL = "full fidelity"
EFFECTS = ["stage", "width", "trials", "accuracy", "error", "macs"]


def stage_effects(view: StudyView) -> DataFrame:
    """Estimate what AFI of each width changes in each stage, against that stage without it.

    A linear model, accuracy = plain + one effect a stage and width, is fitted by least squares to
    the trials of full fidelity; ratio, attention and scorer count as noise. A row has EFFECTS: the
    stage from 1, the width, how many trials have it, the change of accuracy (0 to 1), half of its
    95 % interval (of normal errors of equal size), and the change of MACs per image. There is none
    where too few trials differ, nor of a stage that never was off.
    """
    full = view.full
    widths = _choices(full).filter(like=" width").to_numpy()
    terms = [  # each is compared with off, or with the first width where none is off
        (stage, width)
        for stage, column in enumerate(widths.T)
        for width in [level for level in (OFF, *WIDTHS) if level in column][1:]
    ]
    columns = [widths[:, stage] == width for stage, width in terms]
    design = np.column_stack([np.ones(len(full)), *columns]).astype(float)
    spare = design.shape[0] - design.shape[1]
    if not terms or spare < FEWEST_SPARE or np.linalg.matrix_rank(design) < design.shape[1]:
        return DataFrame(columns=EFFECTS)
    measured = full[["accuracy", "macs"]].to_numpy(dtype=float)
    inverse = np.linalg.inv(design.T @ design)
    effects = inverse @ design.T @ measured
    variance = float(((measured - design @ effects)[:, 0] ** 2).sum()) / spare
    errors = stdtrit(spare, 0.975) * np.sqrt(variance * np.diag(inverse))
    rows = [
        (stage + 1, width, int(column.sum()), gain, error, macs)
        for (stage, width), column, (gain, macs), error in zip(
            terms, columns, effects[1:], errors[1:], strict=True
        )
        if OFF in widths[:, stage]
    ]
    return DataFrame(rows, columns=EFFECTS)


def choices_of(architecture: Architecture) -> dict[str, str]:
    """Return what was chosen, by names like `stage 2 ratio`; off, a stage has a width alone."""
    chosen: dict[str, str] = {}
    for number, choice in enumerate(architecture.stages, start=1):
        stage = f"stage {number}"
        chosen[f"{stage} width"] = OFF if choice is None else choice.width
        if choice is not None:
            chosen[f"{stage} ratio"] = str(choice.ratio)
            chosen[f"{stage} attention"] = choice.attention or NONE
            chosen[f"{stage} scorer"] = choice.scorer
    return chosen


def choice_table(records: DataFrame) -> DataFrame:
    """Return the choices in which trials differ, a row a trial; what does not apply is NaN."""
    table = _choices(records)
    names = sorted(table.columns, key=_order)
    return table[[name for name in names if table[name].nunique(dropna=False) > 1]]


def _choices(records: DataFrame) -> DataFrame:
    rows = [choices_of(Architecture.parse(text)) for text in records["architecture"]]
    return DataFrame(rows, index=records.index)


def levels_of(table: DataFrame, name: str) -> list[str]:
    """Return the levels of a choice that occur, numbers by size and `off` and `none` first."""
    return sorted(table[name].dropna().unique(), key=_level_order)


def _order(name: str) -> tuple[int, int]:
    _, stage, axis = name.split()
    return int(stage), ("width", "ratio", "attention", "scorer").index(axis)


def _level_order(level: str) -> tuple[bool, int, str]:
    return level not in (OFF, NONE), int(level) if level.isdigit() else 0, level


def importance(study: optuna.Study) -> DataFrame:
    """Return how much each choice matters for being among the best trials of full fidelity.

    By Optuna's PED-ANOVA, which knows choices that depend on others: S. Watanabe et al., PED-ANOVA:
    Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces, IJCAI 2023. The best
    are a tenth of them, or five where a tenth is fewer. A row a choice (`stage 2 ratio`) has
    `front`, of being near the front, and `accuracy`, whatever the cost; each column sums to 1, the
    largest of `front` come first. Empty with fewer than FEWEST_TRIALS trials.
    """
    trials = study.get_trials(deepcopy=False)
    if len(trials) < FEWEST_TRIALS or not any(trial.params for trial in trials):
        return DataFrame(columns=["front", "accuracy"], dtype=float)
    from optuna.importance import (  # takes scikit-learn along
        PedAnovaImportanceEvaluator,
        get_param_importances,
    )

    with quiet():
        best = max(BEST_SHARE, FEWEST_BEST / len(trials))
        evaluator = PedAnovaImportanceEvaluator(target_quantile=best)
        near = get_param_importances(study, evaluator=evaluator)
        accurate = get_param_importances(
            study, evaluator=evaluator, target=lambda trial: -trial.values[0]
        )
    result = DataFrame({"front": near, "accuracy": accurate})
    return result.sort_values("front", ascending=False, kind="stable")


def importance_intervals(study: optuna.Study, table: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Return the ends of the 95 % intervals of importances: the bootstrap's percentiles.

    They hold the luck of which trials there are. More than MOST_RESAMPLED are not resampled.
    """
    trials = study.get_trials(deepcopy=False)
    if table.empty or len(trials) > MOST_RESAMPLED:
        return table, table
    random, draws = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        with quiet():
            resampled = optuna.create_study(directions=study.directions)
            resampled.add_trials(
                [trials[at] for at in random.integers(len(trials), size=len(trials))]
            )
        draws.append(importance(resampled).reindex(table.index).fillna(0.0))
    low, high = (
        DataFrame(np.percentile(draws, q, axis=0), table.index, table.columns) for q in (2.5, 97.5)
    )
    return low.clip(upper=table), high.clip(lower=table)


class _Levels(CategoricalDistribution):
    """What all trials of a study share, and Optuna would copy and compare trial by trial."""

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = CategoricalDistribution.__hash__


def as_optuna(view: StudyView) -> optuna.Study:
    """Return the trials of full fidelity for Optuna: accuracy, losses, choices that differ."""
    full = in_order_of_ends(view.full)
    table, values = choice_table(full), points(full)
    levels: dict[str, BaseDistribution] = {
        name: _Levels(levels_of(table, name)) for name in map(str, table)
    }
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (values.shape[1] - 1)]
    with quiet():
        study = optuna.create_study(directions=directions)
    for row, chosen in zip(values.tolist(), table.to_dict("records"), strict=True):
        params = {str(name): level for name, level in chosen.items() if isinstance(level, str)}
        distributions = {name: levels[name] for name in params}
        study.add_trial(create_trial(values=row, params=params, distributions=distributions))
    return study


def in_order_of_ends(records: DataFrame) -> DataFrame:
    return records.sort_values(["finished", "number"], kind="stable")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from telling of a study that only serves a calculation."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        optuna.logging.set_verbosity(level)


def effort(view: StudyView) -> DataFrame:
    """Add up epochs and seconds by what became of trials; `saved`: what pruned ones were spared."""
    records = view.records
    kinds = view.kinds.replace({FRONT: FULL, OTHERS: FULL})
    spent = records.groupby(kinds)[["epochs", "seconds"]].sum().reindex([FULL, *KINDS[2:]])
    pruned = records[(records["state"] == "pruned") & (records["epochs"] > 0)]
    left = (view.info.epochs - pruned["epochs"]).clip(lower=0)
    seconds = float((left * pruned["seconds"] / pruned["epochs"]).sum())
    spent = spent[spent["epochs"] > 0].astype({"epochs": int, "seconds": float})
    spent.loc["saved"] = [int(left.sum()), seconds]
    return spent
