from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afi_search.space import Space
from benchmarks import afi_bench
from benchmarks.search_quality import own
from benchmarks.simulator import play
from benchmarks.tables import recorded_space, table_of


def points() -> dict[str, dict[str, list[float]]]:
    """Three parameters with 2, 3 and 2 choices; what a point has follows from its digits."""
    return {
        f"{a}{b}{c}": {
            "val_acc": [50.0 + 10 * a + b, 52.0 + 10 * a + b],
            "val_loss": [0.1 + 0.2 * a, 0.1 + 0.2 * a + 0.01 * (b + 1)],
            "model_size": [1.0 + a + b + c] * 2,
            "train_time": [10.0 * (1 + c)] * 2,
        }
        for a, b, c in product(range(2), range(3), range(2))
    }


def test_a_point_of_the_table_is_the_placement_of_its_digits() -> None:
    space, costs, table = table_of("nasbench201", "made-up", points())

    assert space.size == len(table.architectures) == 12
    for architecture in space.architectures():
        row = table.row(architecture)
        a, b, c = (
            [str(choice) for choice in choices].index(str(chosen))
            for choices, chosen in zip(space.stage_choices, architecture.stages, strict=True)
        )
        assert costs.of(architecture).params == (1 + a + b + c) * 10**6
        assert table.final[row] == pytest.approx(0.51 + 0.1 * a + 0.01 * b)
        assert table.seconds[row] == pytest.approx((1 + c) / 1.5)
        reached = sorted({table.curve(row, seed)[-1] for seed in range(20)})
        assert reached == pytest.approx([0.5 + 0.1 * a + 0.01 * b, 0.52 + 0.1 * a + 0.01 * b])


def test_losses_become_accuracies_by_their_logarithm() -> None:
    found = points()
    table = table_of("hpolib", "made-up", found)[2]
    losses = [np.array(point["val_loss"]) for _, point in sorted(found.items())]
    reached = [curves[:, -1] for curves in table.curves]

    assert np.max(reached) == pytest.approx(1)
    assert np.min(reached) == pytest.approx(0)
    assert np.argsort(np.ravel(reached)).tolist() == np.argsort(-np.ravel(losses)).tolist()


def test_production_code_searches_a_table_whole() -> None:
    space, costs, table = table_of("nasbench201", "made-up", points())
    played = play(own("known-cost")(space, costs, 0), table, budget=10**6)

    assert played.trials == played.distinct == space.size
    assert play(own("known-cost")(space, costs, 0), table, budget=10**6) == played


def test_afi_bench_gives_one_seed_and_is_valued_by_the_others(tmp_path: Path) -> None:
    rows = [
        {
            "architecture": architecture.text,
            "seed": seed,
            "epoch": epoch,
            "validation_accuracy": 0.1 * epoch + 0.01 * seed,
            "test_accuracy": 0.2 * epoch + 0.01 * seed,
            "macs": 1000 + number,
        }
        for number, architecture in enumerate(Space.load(afi_bench.SPACE).architectures())
        for seed in range(1 if number == 8 else 2)
        for epoch in (2, 1, 3)
    ]
    frame = pd.DataFrame(rows)
    afi_bench.write_table(frame, tmp_path / afi_bench.TABLE)
    space, costs, table = recorded_space(tmp_path)
    architecture = space[7]

    assert table.row(architecture) == 7 and table.cost[7] == 1007
    for seed in range(5):
        curve = table.curve(7, seed)
        assert curve in (pytest.approx([0.1, 0.2, 0.3]), pytest.approx([0.11, 0.21, 0.31]))
        assert table.worth(7, seed) == pytest.approx(0.91 - curve[-1]), "the other seed, tested"
        assert table.curve(8, seed) == pytest.approx([0.1, 0.2, 0.3])
        assert table.worth(8, seed) == pytest.approx(0.6), "its own, where there is no other"
    assert costs.of(architecture).macs > 1_000_000

    afi_bench.write_table(
        frame[frame["architecture"] != architecture.text], tmp_path / "table.csv.gz"
    )
    assert recorded_space(tmp_path)[0].size == 27, "the grid of widths alone is whole"

    few = frame[~frame["architecture"].isin([architecture.text, "resnet20(B-r16)"])]
    afi_bench.write_table(few, tmp_path / "table.csv.gz")
    with pytest.raises(ValueError, match="1 of 27 networks are not recorded yet"):
        recorded_space(tmp_path)
