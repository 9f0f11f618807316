"""How well scores order architectures as their full trainings do.

Kendall's tau, with the interval of its Fisher transform (Fieller et al. 1957, Tests for rank
correlation coefficients), overall and among architectures of equal MACs: size may decide most of an
order, and size is free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from afi_search.space import Space
from afi_search.study.study import Study

FEWEST = 12
"""Full trials from which on scores are compared with them."""

FREE = {"macs": "MACs", "params": "parameters"}
INHERITED = "inherited"
HEIRS, TRAINING = "heirs", "training"
"""The names under which an audit says, in its `attrs`, whether trials started with such weights,
and what the supernet's training has cost, in full trials."""
CHEAP = ("naswot", "zico", "synflow")
EPOCHS = (1, 3, 10)


class Interval(NamedTuple):
    """A correlation with the ends of its 95 % interval."""

    tau: float
    low: float
    high: float


def kendall(score: pd.Series, truth: pd.Series) -> Interval:
    """Return Kendall's tau-b of two columns of the same architectures, five at least."""
    return _interval(_tau(score, truth), len(score) - 4)


def partial_kendall(score: pd.Series, truth: pd.Series, given: pd.Series) -> Interval:
    """Return the tau that score and truth have where `given` is the same.

    It is Kendall's tau of what is left of both columns' ranks when a straight line in the ranks of
    `given` is taken away. The formula that Kendall (1942) gave for a partial tau is not 0 where
    score and truth have nothing in common but `given`, so it would find something in mere size.
    """
    left = [_left(column.rank(), given.rank()) for column in (score, truth)]
    return _interval(_tau(*left), len(score) - 5)


def _tau(one: Any, other: Any) -> float:
    from scipy.stats import kendalltau  # takes half a second to import

    return float(kendalltau(one, other).statistic)


def _left(ranks: pd.Series, given: pd.Series) -> pd.Series:
    slope = ranks.cov(given) / given.var() if given.nunique() > 1 else 0.0
    return (ranks - slope * given).round(6)


def _interval(tau: float, freedom: int) -> Interval:
    if freedom < 1 or math.isnan(tau):
        return Interval(tau, math.nan, math.nan)
    z, half = math.atanh(max(min(tau, 1 - 1e-9), 1e-9 - 1)), 1.96 * math.sqrt(0.437 / freedom)
    return Interval(tau, min(tau, math.tanh(z - half)), max(tau, math.tanh(z + half)))


def rank_table(
    scores: pd.DataFrame,
    truth: pd.Series,
    costs: Mapping[str, float] | None = None,
    *,
    fewest: int = FEWEST,
) -> pd.DataFrame:
    """Return one row a score: how its order agrees with the truth's.

    Args:
        scores: a row an architecture, a column a score, `macs` among them.
        truth: what the architectures reach, with the same index.
        costs: of each score, in trainings of one architecture.
        fewest: architectures that must have a score, 5 at least.

    Returns:
        `tau`, `low`, `high`; `partial`, `partial_low`, `partial_high`, given the MACs; `cost`, 0
        where none is given; `count` of the architectures that have the score. Scores that fewer
        have, or that are the same for all, are left out.
    """
    rows = {}
    for name in map(str, scores):
        known = scores[name].notna() & truth.notna()
        column, reached = scores.loc[known, name], truth[known]
        if known.sum() < fewest or column.nunique() < 2 or reached.nunique() < 2:
            continue
        partial = partial_kendall(column, reached, scores.loc[known, "macs"])
        rows[name] = [
            *kendall(column, reached),
            *partial,
            (costs or {}).get(name, 0.0),
            int(known.sum()),
        ]
    names = ("tau", "low", "high", "partial", "partial_low", "partial_high", "cost", "count")
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(names))


def audit(study: Study) -> pd.DataFrame:
    """Compare the scores in a study's ledger with its full trials; see `rank_table`.

    A score costs the time that it took in the workers of trials, in the mean time of a full trial,
    and an inherited one the supernet's training, too; see `trainings`.
    """
    records, scores = study.records(), study.ledger.scores()
    trial = records.loc[records["full"], "seconds"].mean()
    taken = scores.reindex(columns=["inherited_seconds", "cheap_seconds"]).sum() / trial
    epochs = 0 if study.supernet is None else study.supernet.records()["epochs"].sum()
    training = trainings(Space(study.file.space), epochs)
    costs = {
        INHERITED: training + taken["inherited_seconds"],
        **dict.fromkeys(CHEAP, taken["cheap_seconds"]),
    }
    audit = audited(records, scores.reindex(columns=[INHERITED, *CHEAP]), costs)
    audit.attrs[TRAINING] = training
    return audit


def trainings(space: Space, epochs: float) -> float:
    """Return what so many epochs of a space's supernet cost, in trainings of one architecture.

    By the passes that both make, as no other clock is the same for both: the supernet is trained
    alone, trials beside each other, and the machine may be busier in the meantime.
    """
    widths = [len({choice and choice.width for choice in of}) for of in space.stage_choices]
    at_once = {"fair": max(widths, default=1), "single-path": 1, "sandwich": 4}
    return at_once[space.file.search.supernet.sampling] * epochs / space.file.recipe.epochs


def audited(
    records: pd.DataFrame, scores: pd.DataFrame, costs: Mapping[str, float]
) -> pd.DataFrame:
    """Compare a study's scores, and its trials' first epochs, with its full trials; `rank_table`.

    Args:
        scores: a row an architecture, by its text.
    """
    full = records[records["full"]].drop_duplicates("architecture").set_index("architecture")
    table = full[[*FREE]].join(scores.reindex(full.index))
    all_costs = dict(costs)
    whole = full["epochs"].max() if len(full) else 0
    for epoch in (each for each in EPOCHS if each < whole):
        name = f"after {epoch} epoch{'s' * (epoch > 1)}"
        table[name] = [curve[epoch - 1] for curve in full["curve"]]
        all_costs[name] = len(full) * epoch / whole
    ranked = rank_table(table, full["accuracy"], all_costs)
    ranked.attrs[HEIRS] = bool((full["init"] == INHERITED).any())
    return ranked


def beats_what_is_free(table: pd.DataFrame) -> bool | None:
    """Whether inherited accuracies order architectures better than their size, which is free.

    They do where their tau is above those of MACs and parameters, and above 0 among architectures
    of equal MACs. None where too few trials are there to tell.
    """
    if INHERITED not in table.index:
        return None
    free = table["tau"].reindex(list(FREE)).abs().max()
    ours = table.loc[INHERITED]
    return bool(ours["tau"] > free and ours["partial"] > 0)


def verdict(table: pd.DataFrame) -> str:
    """Say in a sentence what inherited accuracies are worth in a study; empty where unknown."""
    beats = beats_what_is_free(table)
    if beats is None:
        return ""
    row = table.loc[INHERITED]
    sure = "" if row["partial_low"] > 0 else ", though that may be chance"
    found = (
        f"The supernet orders architectures better than their size does{sure}"
        if beats
        else "The supernet does not beat what is free, and is left out of proposals"
    )
    taus = table["tau"].to_dict()
    free = "".join(
        f"; of {word} alone {taus[name]:.2f}" for name, word in FREE.items() if name in taus
    )
    said = (
        f"{found}: Kendall's tau with the final accuracies {row['tau']:.2f} ({row['low']:.2f} to "
        f"{row['high']:.2f}), {row['partial']:.2f} among architectures of equal MACs"
        f"{free}. It cost {row['cost']:.1f} full trials."
    )
    if table.attrs.get(HEIRS):
        said += " Trials started with its weights, which by itself makes them agree with it."
    return said
