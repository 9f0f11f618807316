"""What a study cost, and what pruning saved."""

from __future__ import annotations

from dataclasses import dataclass

from pandas import DataFrame

KINDS = ("full fidelity", "pruned", "failed", "not finished")
SAVED = "saved by pruning"


@dataclass(frozen=True)
class Effort:
    """The training that went into a study.

    Attributes:
        epochs: trained epochs by what became of their trial; see KINDS.
        seconds: time in training, likewise.
        epochs_saved: the epochs that pruned trials were not trained for.
        seconds_saved: the time these would have taken at each trial's own pace.
    """

    epochs: dict[str, int]
    seconds: dict[str, float]
    epochs_saved: int
    seconds_saved: float

    @property
    def share_saved(self) -> float:
        """The share of the epochs without pruning that pruning saved."""
        without = sum(self.epochs.values()) + self.epochs_saved
        return self.epochs_saved / without if without else 0.0


def effort(records: DataFrame, full_epochs: int) -> Effort:
    """Add up the training of all trials.

    Args:
        records: the ledger's trials.
        full_epochs: the epochs of full fidelity.
    """
    kinds = [
        "full fidelity" if full else state if state in KINDS else "not finished"
        for full, state in zip(records["full"], records["state"], strict=True)
    ]
    by_kind = records.assign(kind=kinds).groupby("kind")[["epochs", "seconds"]].sum()
    pruned = records[(records["state"] == "pruned") & (records["epochs"] > 0)]
    left = (full_epochs - pruned["epochs"]).clip(lower=0)
    present = [kind for kind in KINDS if by_kind["epochs"].get(kind, 0) > 0]
    return Effort(
        epochs={kind: int(by_kind["epochs"][kind]) for kind in present},
        seconds={kind: float(by_kind["seconds"][kind]) for kind in present},
        epochs_saved=int(left.sum()),
        seconds_saved=float((left * pruned["seconds"] / pruned["epochs"]).sum()),
    )
