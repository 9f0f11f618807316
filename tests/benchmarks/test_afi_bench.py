"""The recorder of AFI-Bench-16: what it trains and when, what it keeps, and what it says of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway

from afi_search.space import Space
from benchmarks.afi_bench import (
    SPACE,
    TABLE,
    Training,
    analyse,
    main,
    missing,
    plan,
    read_table,
    spread,
    write_table,
)

PILOT = [
    "resnet20",
    "resnet20(base-r4)",
    "resnet20(B-r16)",
    "resnet20(base-r4, off, off)",
    "resnet20(off, base-r4, off)",
    "resnet20(off, off, base-r4)",
    "resnet20(B-r16, off, off)",
    "resnet20(off, B-r16, off)",
    "resnet20(off, off, B-r16)",
]
MEASURED = ["architecture", "seed", "epoch", "validation_accuracy", "test_accuracy", "loss"]


@pytest.fixture(scope="module")
def space() -> Space:
    return Space.load(SPACE)


def rows(training: Training, accuracy: float) -> pd.DataFrame:
    """A training of two epochs."""
    return pd.DataFrame(
        {
            "architecture": training.architecture.text,
            "seed": training.seed,
            "epoch": [1, 2],
            "validation_accuracy": [0.1, accuracy],
            "test_accuracy": [0.1, accuracy],
            "seconds": [20.0, 22.0],
            "device": "2 cores",
        }
    )


def test_the_pilot_comes_first_seed_by_seed(space: Space) -> None:
    first = [(training.architecture.text, training.seed) for training in plan(space)[:36]]

    assert first == [(text, seed) for seed in range(4) for text in PILOT]


def test_then_the_widths_then_every_network_then_more_seeds(space: Space) -> None:
    trainings = plan(space)
    assert len(set(trainings)) == len(trainings) == 8 * 125
    widths = {
        a for a in space.architectures() if set(a.choice_texts) <= {"off", "base-r4", "B-r16"}
    }
    assert len(widths) == 27

    after = trainings[36 : 36 + 3 * (27 - 9)]
    assert {(t.architecture, t.seed) for t in after} == {
        (a, seed) for a in widths for seed in range(3) if a.text not in PILOT
    }
    once = trainings[90 : 90 + 98]
    assert {t.architecture for t in once} == set(space.architectures()) - widths
    for part in (after, trainings[90:]):
        assert all(one.seed <= other.seed for one, other in pairwise(part))


def test_what_the_table_has_is_not_trained_again(space: Space, tmp_path: Path) -> None:
    trainings, path = plan(space), tmp_path / TABLE
    assert list(missing(trainings, read_table(path))) == trainings

    write_table(pd.concat(rows(trainings[k], 0.5) for k in (0, 2, 40)), path)

    assert list(missing(trainings, read_table(path))) == [
        training for k, training in enumerate(trainings) if k not in (0, 2, 40)
    ]


def test_the_same_rows_are_the_same_bytes(space: Space, tmp_path: Path) -> None:
    table = rows(plan(space)[0], 0.5)
    for name in ("one.csv.gz", "other.csv.gz"):
        write_table(table, tmp_path / name)
        time.sleep(1.1)  # A time in the file would be another one now.

    assert (tmp_path / "one.csv.gz").read_bytes() == (tmp_path / "other.csv.gz").read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "one.csv.gz"), table)


def test_the_spread_is_that_of_the_analysis_of_variance() -> None:
    draw = np.random.default_rng(0)
    accuracies = 0.5 + 0.03 * draw.normal(size=(9, 1)) + 0.01 * draw.normal(size=(9, 4))

    found = spread(accuracies)

    statistic = f_oneway(*accuracies).statistic
    assert found.ratio[0] == pytest.approx(np.sqrt((statistic - 1) / 4))
    assert found.networks / found.seeds == pytest.approx(found.ratio[0])
    assert found.ratio[1] < found.ratio[0] < found.ratio[2]


def test_the_ratios_interval_holds_the_truth_19_times_of_20() -> None:
    draw = np.random.default_rng(1)
    intervals = [
        spread(1.5 * draw.normal(size=(9, 1)) + draw.normal(size=(9, 4))).ratio for _ in range(2000)
    ]

    assert np.mean([low <= 1.5 <= high for _, low, high in intervals]) == pytest.approx(
        0.95, abs=0.02
    )


def test_the_analysis_takes_the_seeds_that_the_whole_pilot_has(space: Space) -> None:
    trainings = plan(space)
    assert "0 of 1000 trainings" in analyse(read_table(Path("nowhere")), space)
    table = pd.concat(rows(t, 0.3 + 0.01 * k) for k, t in enumerate(trainings[:9]))
    assert "the pilot needs two seeds" in analyse(table, space)

    table = pd.concat(
        rows(t, 0.3 + 0.01 * (k % 9) + 0.001 * k) for k, t in enumerate(trainings[:20])
    )

    said = analyse(table, space)
    assert "20 of 1000 trainings are recorded, of 9 of 125 networks" in said
    assert "9 networks x 2 seeds" in said
    assert "Seconds an epoch on 2 cores: 21.0." in said


def test_a_killed_recorder_goes_on_to_the_same_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two trainings of six epochs; one recorder is killed in the middle of the second."""
    settings = {
        "name: cifar100": "name: digits\n  train_subset: 256",
        "epochs: 12": "epochs: 6",
    }
    text = SPACE.read_text()
    for old, new in settings.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "tiny.yaml").write_text(text)

    main(tmp_path / "tiny.yaml", tmp_path / "whole", trainings=2)
    killed = recorder(tmp_path / "tiny.yaml", tmp_path / "killed")
    wait_for(tmp_path / "killed.log", r"base-r4\) seed 0 epoch 2", killed)
    killed.kill()
    killed.wait()
    assert len(read_table(tmp_path / "killed" / TABLE)) == 6
    main(tmp_path / "tiny.yaml", tmp_path / "killed", trainings=1)

    said = capsys.readouterr().out
    assert said.count("base-r4) seed 0 epoch 1") == 1, "an epoch was trained again"
    whole, resumed = (read_table(tmp_path / name / TABLE) for name in ("whole", "killed"))
    assert list(whole["architecture"].unique()) == PILOT[:2]
    assert whole["epoch"].tolist() == [1, 2, 3, 4, 5, 6] * 2
    pd.testing.assert_frame_equal(whole[MEASURED], resumed[MEASURED])
    assert whole["test_accuracy"].between(0, 1).all()
    assert not list((tmp_path / "killed").rglob("*.pt"))


@pytest.mark.slow
def test_several_processes_record_the_same_table(tmp_path: Path) -> None:
    text = SPACE.read_text().replace("name: cifar100", "name: digits\n  train_subset: 128")
    (tmp_path / "tiny.yaml").write_text(text.replace("epochs: 12", "epochs: 1"))

    main(tmp_path / "tiny.yaml", tmp_path / "one", trainings=3)
    main(tmp_path / "tiny.yaml", tmp_path / "two", trainings=3, processes=2)

    one, two = (
        read_table(tmp_path / name / TABLE).sort_values(["architecture", "seed"], ignore_index=True)
        for name in ("one", "two")
    )
    assert len(one) == 3
    pd.testing.assert_frame_equal(one[MEASURED], two[MEASURED])


def recorder(space: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.afi_bench"]
    with folder.with_suffix(".log").open("w") as output:
        return subprocess.Popen(
            [*command, "--space", str(space), "--folder", str(folder)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )


def wait_for(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while not re.search(pattern, log.read_text()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
