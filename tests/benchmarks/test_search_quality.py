from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import search_quality
from benchmarks.search_quality import Yardstick, contenders, prepare, search, summarise
from benchmarks.simulator import FullTraining, Play

TABLE = "generated-1"


def all_trained() -> Play:
    table = prepare(TABLE)[2]
    finished = tuple(
        FullTraining(row + 1, float(row), row, accuracy=float(final), worth=float(final))
        for row, final in enumerate(table.final)
    )
    return Play(finished, len(finished), len(finished), len(finished))


def test_everything_trained_is_all_of_the_hypervolume_and_no_regret() -> None:
    played, yardstick = all_trained(), Yardstick(prepare(TABLE)[2])

    assert yardstick.measure(played, len(played.finished)) == pytest.approx((100.0, 0.0))
    assert yardstick.measure(played, 0)[0] == 0.0
    assert 0 < yardstick.measure(played, 50)[0] < 100


def test_the_front_is_chosen_by_what_was_measured_and_valued_by_the_other_seeds() -> None:
    table = prepare(TABLE)[2]
    best, worse = int(table.final.argmax()), int(table.final.argmin())
    good = FullTraining(1, 1.0, best, accuracy=0.5, worth=float(table.final[best]))
    lucky = FullTraining(2, 2.0, worse, accuracy=0.9, worth=float(table.final[worse]))
    yardstick = Yardstick(table)

    _, regret = yardstick.measure(Play((good, lucky), 2, 2, 2), 2)
    assert regret == pytest.approx(100 * (table.final[best] - table.final[worse]))
    _, regret = yardstick.measure(Play((good, replace(lucky, accuracy=0.4)), 2, 2, 2), 2)
    assert regret == pytest.approx(0.0)


@pytest.mark.parametrize("name", [name for name in contenders() if not name.startswith("gp")])
def test_no_contender_trains_anything_twice(name: str) -> None:
    rows = pd.DataFrame(search((name, TABLE, 0, 8, False)))

    assert list(rows["trainings"]) == [8]
    assert rows["trials"].equals(rows["distinct"])
    assert (rows["hypervolume"] > 0).all()


def test_the_lead_is_that_of_the_same_seeds() -> None:
    found = {
        "known-cost, mo-asha": [60.0, 70.0, 80.0],
        "known-cost, no pruning": [50.0, 60.0, 70.0],
        "tpe, no pruning": [58.0, 69.0, 78.0],
    }
    rows = pd.DataFrame(
        {
            "table": table,
            "contender": contender,
            "seed": seed,
            "trainings": 20,
            "hypervolume": value,
            "regret": 1.0,
            "full": 20,
            "trials": 30,
            "distinct": 30,
            "cpu_ms": 5.0,
        }
        for table in ("one", "other")
        for contender, values in found.items()
        for seed, value in enumerate(values)
    )
    summary = summarise(rows).set_index(["table", "contender"])

    assert set(summary.index.get_level_values("table")) == {"one", "other", "all"}
    for table in ("one", "other", "all"):
        tpe: Any = summary.loc[table, "tpe, no pruning"]
        assert tpe["hypervolume"] == pytest.approx(np.mean(found["tpe, no pruning"]))
        assert tpe["lead of mo-asha"] == pytest.approx(5 / 3)
        assert tpe["lead of no pruning"] == pytest.approx(-25 / 3)
        # The leads are 2, 1 and 2; the quantile is that of two degrees of freedom.
        assert tpe["lead of mo-asha_ci"] == pytest.approx(4.3027 * 0.57735 / 3**0.5, rel=1e-4)


def test_it_writes_rows_a_table_and_a_plot_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["random, mo-asha", "Ray Tune: OptunaSearch, ASHA"]
    asked = f"--tables {TABLE} --budget 4 --processes 1 --out {tmp_path} --only".split()
    for seeds in ("1", "2"):
        command = ["search_quality", *asked, *names, "--seeds", seeds]
        monkeypatch.setattr(sys, "argv", command)
        search_quality.main()

    rows = pd.read_csv(tmp_path / "search_quality_rows.csv")
    assert len(rows) == 2 * 2
    assert not rows.duplicated(["contender", "table", "seed", "trainings"]).any()
    summary = pd.read_csv(tmp_path / "search_quality.csv")
    assert set(summary["contender"].unique()) == set(names)
    assert set(summary["table"]) == {TABLE, "all"}
    assert (summary["seeds"] == 2).all()
    assert (tmp_path / "search_quality.png").stat().st_size > 10_000
    assert "GENERATED" in capsys.readouterr().out
