"""What a confirmation found: one row an architecture, as a table, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from afi_search.cost import CONVENTIONS as OF_COSTS
from afi_search.files import csv_of, plain, write_together
from afi_search.promote.significance import LEVEL, Point, interval, pooled_spread, verdicts
from afi_search.study.ledger import curve
from afi_search.study.study import Study

COLUMNS = (
    *("architecture", "origin", "verdict", "seeds", "test", "test_low", "test_high"),
    *("validation", "validation_low", "validation_high", "macs", "params", "paper_gflops"),
)
FILES = ("confirmed.csv", "confirmed.json")
CONVENTIONS = {
    "test": "mean over seeds of the share of test images classified correctly, 0 to 1; the test "
    "set is read once a training, after all trainings are finished",
    "validation": "the same on the held-out validation images, which the search has looked at",
    "low, high": "95 % interval of the mean over seeds (Student's t, spread pooled over all "
    "architectures); it does not hold the error of drawing these images",
    "verdict": "stands: more accurate on the test set than every other that is as cheap or "
    f"cheaper, at a level of {LEVEL:.0%}; beaten: one of these is more accurate; tied: the best of "
    "these is exactly as accurate; open: seeds do not tell; unrivalled: nothing is as cheap",
    "macs": OF_COSTS["macs"],
}


def confirmed_table(
    trials: Iterable[FrozenTrial], test_accuracy: Mapping[int, float]
) -> pd.DataFrame:
    """Return COLUMNS of what has been trained and tested, a row an architecture, cheapest first."""
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.number in test_accuracy:
            groups.setdefault(trial.user_attrs["architecture"], []).append(trial)
    facts = pd.DataFrame([of_one[0].user_attrs for of_one in groups.values()])
    found: dict[str, Any] = {"seeds": list(map(len, groups.values()))}
    for name, accuracy in (
        ("test", lambda trial: test_accuracy[trial.number]),
        ("validation", lambda trial: curve(trial)[-1]),
    ):
        points = [Point(o[0].user_attrs["macs"], tuple(map(accuracy, o))) for o in groups.values()]
        if name == "test":
            found["verdict"] = verdicts(points)
        spread = pooled_spread(points)
        found[name] = [point.mean for point in points]
        found[f"{name}_low"] = [interval(point, spread)[0] for point in points]
        found[f"{name}_high"] = [interval(point, spread)[1] for point in points]
    table = facts.assign(**found).reindex(columns=list(COLUMNS))
    return table.sort_values(["macs", "test"], kind="stable", ignore_index=True)


def read_confirmed(study: Study) -> pd.DataFrame:
    """Return what the confirmation of a study has found; no rows where there is none."""
    if study.confirmation is None:
        return confirmed_table((), {})
    ledger = study.confirmation.ledger
    return confirmed_table(ledger.trials(), ledger.tested())


def most_promising(table: pd.DataFrame) -> pd.DataFrame:
    """Return what is not beaten of a `confirmed_table`, first what is to be promoted first.

    That is the cheapest of all whose validation accuracy cannot be told from the best one at a
    level of 5 % (two-sided t-test); then the same of what is left, and so on: the one standard
    error rule (Breiman et al., Classification and Regression Trees, 1984) with a test in it.
    """
    left, order = table[table["verdict"] != "beaten"], []
    half = (table["validation_high"] - table["validation"]).fillna(0)  # one seed has no interval
    while len(left):
        mean, error = left["validation"], half.loc[left.index]
        best = mean.argmax()
        alike = left[mean.iloc[best] - mean <= np.hypot(error.iloc[best], error)]
        order.append(alike.index[0])
        left = left.drop(alike.index[0])
    return table.loc[order]


def write_confirmed(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write confirmed.csv and confirmed.json into a confirmation's folder; return the paths."""
    document = {"conventions": CONVENTIONS, "confirmed": table.to_dict("records")}
    contents = csv_of(table), json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n"
    return write_together(folder, dict(zip(FILES, contents, strict=True)))
