"""How far a space's latencies, summed over stages, are from those of whole networks.

    python -m benchmarks.latency spaces/resnet.yaml --architectures 24

Every choice of every stage is run once, as a study does before its first trial; then random
architectures of the space are run whole. The peer is what one would do without the table: counting
MACs and taking latency to be proportional to them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau

from afi_search.cost import SpaceCosts, measure
from afi_search.cost.latency import describe_target, target_device, time_stages
from afi_search.data import spec_of
from afi_search.space import Space
from benchmarks.rounds import RESULTS


def main() -> None:
    """Measure the table, then whole networks; print both and write them as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("space", type=Path)
    parser.add_argument("--architectures", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    space = Space.load(asked.space)
    source, target = spec_of(space.file.data), space.file.target
    device = target_device(target.device)
    sizes = {"num_classes": source.num_classes, "image_size": source.image_size}

    began = time.perf_counter()
    table = SpaceCosts(space, **sizes).table
    table_seconds = time.perf_counter() - began

    random = np.random.default_rng(asked.seed)
    drawn = [space[int(i)] for i in random.choice(space.size, asked.architectures, replace=False)]
    whole = [
        time_stages(a, **sizes, device=device, batch_size=target.batch).whole.latency / 1e6
        for a in drawn
    ]
    rows = pd.DataFrame(
        {
            "architecture": map(str, drawn),
            "whole_ms": whole,
            "summed_ms": [table.of(a).latency / 1e6 for a in drawn],
            "macs": [measure(a, **sizes).macs for a in drawn],
        }
    )
    rows["by_macs_ms"] = rows["macs"] * (rows["whole_ms"].sum() / rows["macs"].sum())
    asked.out.mkdir(parents=True, exist_ok=True)
    rows.round(4).to_csv(asked.out / "latency.csv", index=False)
    print(f"{asked.space}: {describe_target(device, target.batch)}; table in {table_seconds:.0f} s")
    print(
        pd.DataFrame({name: against(rows, name) for name in ("summed_ms", "by_macs_ms")}).round(3)
    )


def against(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """Compare an estimate with the whole networks' times."""
    errors = (rows[column] / rows["whole_ms"] - 1).abs()
    return {
        "median error": errors.median(),
        "largest error": errors.max(),
        "Kendall's tau": kendalltau(rows[column], rows["whole_ms"]).statistic,
    }


if __name__ == "__main__":
    main()
