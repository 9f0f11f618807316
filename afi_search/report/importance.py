"""How much each choice matters, by PED-ANOVA.

Source: S. Watanabe et al., PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
Arbitrary Subspaces, IJCAI 2023; Optuna's implementation, which knows choices that depend on others.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from pandas import DataFrame

from afi_search.report.choices import choice_table, levels_of
from afi_search.study.pareto import comparable, costs_of

FEWEST_TRIALS = 10
BEST_SHARE = 0.1
FEWEST_BEST = 5


def importance(records: DataFrame) -> DataFrame:
    """Return how much each choice matters for being among the best trials of full fidelity.

    The best are a tenth of them, or five where a tenth is fewer. Each column sums to 1.

    Args:
        records: the ledger's trials, all of one backbone.

    Returns:
        A row a choice (`stage 2 ratio`), the columns `front` (being near the front) and `accuracy`
        (being accurate, whatever the cost), the most important for the front first. Empty where
        there are fewer than FEWEST_TRIALS trials of full fidelity or nothing to choose.

    Raises:
        ValueError: a column is missing.
    """
    full = comparable(records)
    table = choice_table(full)
    if len(full) < FEWEST_TRIALS or table.columns.empty:
        return DataFrame(columns=["front", "accuracy"], dtype=float)
    quantile = max(BEST_SHARE, FEWEST_BEST / len(full))
    front = _ped_anova(table, full, ("accuracy", *costs_of(records)), quantile)
    accurate = _ped_anova(table, full, ("accuracy",), quantile)
    result = DataFrame({"front": front, "accuracy": accurate})
    return result.sort_values("front", ascending=False, kind="stable")


def _ped_anova(
    table: DataFrame, records: DataFrame, objectives: Sequence[str], quantile: float
) -> dict[str, float]:
    distributions = {
        name: CategoricalDistribution(levels_of(table, name)) for name in map(str, table)
    }
    directions = ["maximize" if name == "accuracy" else "minimize" for name in objectives]
    values = records[list(objectives)].to_numpy(dtype=float).tolist()
    with _quiet():
        study = optuna.create_study(directions=directions)  # type: ignore[arg-type]
        for chosen, value in zip(table.to_dict("records"), values, strict=True):
            params = {str(name): level for name, level in chosen.items() if isinstance(level, str)}
            study.add_trial(
                optuna.trial.create_trial(
                    params=params,
                    distributions={name: distributions[name] for name in params},
                    values=value,
                )
            )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        return get_param_importances(study, evaluator=evaluator)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling of a study that only serves a calculation."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
