from __future__ import annotations

import csv
import json
import math
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame

from afi_search.files import plain, write_whole
from afi_search.report.export import write_report
from afi_search.report.view import StudyView
from afi_search.study.pareto import front
from tests.report.synthetic_records import empty, record, searched, study_info

NAMES = ["front.csv", "front.json", "front.html", "front.png", "trials.csv"]
INFO = study_info()


@pytest.fixture(scope="module")
def records() -> DataFrame:
    return searched(25, info=INFO)


@pytest.fixture(scope="module")
def folder(records: DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("study") / "made"
    paths = write_report(StudyView(records, INFO), target)
    assert [path.relative_to(target).name for path in paths] == NAMES
    return target


def test_nothing_but_the_five_files_is_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)


def test_front_csv_reads_back_as_the_front(folder: Path, records: DataFrame) -> None:
    read = pd.read_csv(folder / "front.csv")
    best = front(records)
    assert list(read["architecture"]) == list(best["architecture"])
    for column in ("number", "accuracy", "macs", "params", "paper_gflops", "epochs", "seed"):
        assert list(read[column]) == list(best[column])


def test_trials_csv_holds_every_trial_with_its_whole_curve(
    folder: Path, records: DataFrame
) -> None:
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(records.columns)
    assert [int(row["number"]) for row in rows] == list(records["number"])
    assert [json.loads(row["curve"]) for row in rows] == list(records["curve"])
    assert [row["state"] for row in rows] == list(records["state"])


def test_front_json_states_conventions_facts_and_references(
    folder: Path, records: DataFrame
) -> None:
    document = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    best = front(records)
    assert document["schema_version"] == 1
    assert "multiply-accumulates" in document["conventions"]["macs"]
    assert "batch of 32" in document["conventions"]["paper_gflops"]
    assert document["study"]["name"] == "resnet32-cifar100"
    assert document["study"]["environment"]["commit"] == "0123abc"
    assert document["trials"]["total"] == 25
    assert document["trials"]["pruned"] == (records["state"] == "pruned").sum()
    assert [row["architecture"] for row in document["front"]] == list(best["architecture"])
    assert [row["curve"] for row in document["front"]] == list(best["curve"])
    assert document["plain"] == [
        {
            "architecture": "resnet32",
            "macs": document["reference"]["macs"] / 2,
            "params": 472_756,
            "paper_gflops": pytest.approx(2.23, rel=0.01),
        }
    ]
    assert [row["top1"] for row in document["paper"]] == [71.16, 71.09, 72.57]
    assert document["hypervolume"] > 0


def test_the_same_trials_in_another_order_give_the_same_files(
    folder: Path, records: DataFrame, tmp_path: Path
) -> None:
    write_report(StudyView(records.iloc[::-1], INFO), tmp_path)
    for name in ("front.csv", "front.json", "trials.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_before_any_trial_the_files_are_there_and_empty(tmp_path: Path) -> None:
    write_report(StudyView(empty(), INFO), tmp_path)
    document = json.loads((tmp_path / "front.json").read_text(encoding="utf-8"))
    assert document["front"] == [] and document["hypervolume"] == 0
    assert pd.read_csv(tmp_path / "front.csv").empty
    assert pd.read_csv(tmp_path / "trials.csv").empty
    assert "No trial has been started yet." in (tmp_path / "front.html").read_text("utf-8")


def test_what_did_not_get_as_far_as_an_accuracy_is_written_as_missing(tmp_path: Path) -> None:
    failed = record(
        0, math.nan, 7e7, state="failed", full=False, epochs=0, curve=[], finished=pd.NaT,
        reason='lost, "as they say"\nin two lines',
    )  # fmt: skip
    write_report(StudyView(DataFrame([failed]), INFO), tmp_path)
    read = pd.read_csv(tmp_path / "trials.csv", keep_default_na=True)
    assert read.loc[0, "reason"] == failed["reason"]
    assert read.loc[0, "curve"] == "[]"
    assert read[["accuracy", "finished"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float64("nan"), None),
        ([0.5, math.nan], [0.5, None]),
        ({"a": (np.True_, pd.NaT)}, {"a": [True, None]}),
        ("text", "text"),
    ],
)
def test_plain_values_are_what_json_knows(value: object, expected: object) -> None:
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = write_whole(tmp_path / "front.csv", "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*front\.csv'"):
            write_whole(target, "newer")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
