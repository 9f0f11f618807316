"""Trials of the ledger as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from afi_search.space import Architecture

STATE_WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}

COLUMNS = {
    "number": "int64",
    "state": "str",
    "architecture": "str",
    "id": "str",
    "backbone": "str",
    "seed": "int64",
    "epochs": "int64",
    "full": "bool",
    "accuracy": "float64",
    "macs": "int64",
    "params": "int64",
    "paper_gflops": "float64",
    "memory": "float64",
    "latency": "float64",
    "seconds": "float64",
    "origin": "str",
    "curve": "object",
    "reason": "str",
    "started": "datetime64[us]",
    "finished": "datetime64[us]",
}
"""Column -> type. `epochs` are those trained, `full` says that they are all of the recipe's;
`accuracy` is the last epoch's on the validation split, 0 to 1; costs are those of
`afi_search.cost.Cost`, NaN where the study did not ask for them; `seconds` is time in training."""


def to_frame(trials: Iterable[FrozenTrial]) -> pd.DataFrame:
    """Return one row a trial, in the order given."""
    rows = [_row(trial) for trial in trials]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def curve(trial: FrozenTrial) -> list[float]:
    """Return the accuracy after each epoch, from the first."""
    return [accuracy for _, accuracy in sorted(trial.intermediate_values.items())]


def _row(trial: FrozenTrial) -> dict[str, Any]:
    facts = trial.user_attrs
    architecture = Architecture.parse(facts["architecture"])
    accuracies = curve(trial)
    return {
        "number": trial.number,
        "state": STATE_WORDS[trial.state],
        "architecture": architecture.text,
        "id": architecture.id,
        "backbone": architecture.backbone,
        "seed": facts["seed"],
        "epochs": len(accuracies),
        "full": trial.state == TrialState.COMPLETE and len(accuracies) == facts["epochs"],
        "accuracy": accuracies[-1] if accuracies else float("nan"),
        "macs": facts["macs"],
        "params": facts["params"],
        "paper_gflops": facts["paper_gflops"],
        "memory": facts.get("memory", float("nan")),
        "latency": facts.get("latency", float("nan")),
        "seconds": facts.get("seconds", 0.0),
        "origin": facts["origin"],
        "curve": accuracies,
        "reason": facts.get("reason", ""),
        "started": trial.datetime_start,
        "finished": trial.datetime_complete,
    }
