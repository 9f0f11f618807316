"""How the front grew while the study went on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas import DataFrame

from afi_search.study.pareto import comparable, dominated_share, points

ENDED = ("complete", "pruned", "failed")


def hypervolume_over_time(records: DataFrame, reference: tuple[float, ...]) -> DataFrame:
    """Return the front's hypervolume after each trial that ended, in the order of their ends.

    Args:
        records: the ledger's trials.
        reference: (accuracy, costs), as for `hypervolume`.

    Returns:
        The columns `trials` (ended so far), `hours` (of training, summed over these trials,
        whether they ran one after the other or not) and `share` (the hypervolume as a share of
        what a perfect accuracy at no cost would give).

    Raises:
        ValueError: a column is missing.
    """
    ended = records[records["state"].isin(ENDED)].sort_values(["finished", "number"], kind="stable")
    counts = ended.index.isin(comparable(ended).index)
    everywhere = points(ended)
    shares = np.zeros(len(ended))
    for position in np.flatnonzero(counts):
        so_far = everywhere[: position + 1][counts[: position + 1]]
        shares[position:] = dominated_share(so_far, reference)
    return pd.DataFrame(
        {
            "trials": np.arange(1, len(ended) + 1),
            "hours": ended["seconds"].to_numpy(dtype=float).cumsum() / 3600,
            "share": shares,
        }
    )
