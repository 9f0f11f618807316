from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import search_quality
from benchmarks.search_quality import Yardstick, prepare
from benchmarks.simulator import FullTraining, Play


def test_everything_trained_is_all_of_the_hypervolume_and_no_regret() -> None:
    table = prepare("1", 3)[2]
    finished = tuple(
        FullTraining(row + 1, float(row), row, float(table.final[row]))
        for row in range(len(table.final))
    )
    played = Play(finished, len(finished), len(finished), len(finished))
    yardstick = Yardstick(table)

    assert yardstick.measure(played, len(finished)) == pytest.approx((100.0, 0.0))
    assert yardstick.measure(played, 0)[0] == 0.0
    assert 0 < yardstick.measure(played, 50)[0] < 100


def test_the_front_is_chosen_by_what_was_measured_and_valued_by_what_is_true() -> None:
    table = prepare("1", 3)[2]
    best = int(table.final.argmax())
    worse = int(table.final.argmin())
    lucky = Play((FullTraining(1, 1.0, best, 0.5), FullTraining(2, 2.0, worse, 0.9)), 2, 2, 2)

    _, regret = Yardstick(table).measure(lucky, 2)

    assert regret == pytest.approx(100 * (table.final[best] - table.final[worse]))


def test_it_writes_a_table_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["ours: random, mo-asha", "Ray Tune: OptunaSearch, ASHA"]
    asked = f"--seeds 2 --budget 4 --epochs 3 --processes 1 --out {tmp_path} --only".split()
    monkeypatch.setattr(sys, "argv", ["search_quality", *asked, *names])

    search_quality.main()

    summary = pd.read_csv(tmp_path / "search_quality.csv")
    assert list(summary["contender"].unique()) == names
    assert list(summary["trainings"].unique()) == [1, 2, 3, 4]
    assert (summary["seeds"] == 2).all()
    assert (tmp_path / "search_quality.png").stat().st_size > 10_000
    assert "GENERATED" in capsys.readouterr().out
