"""A front is about what its study optimises, whatever that is."""

from __future__ import annotations

import json
from pathlib import Path

import moocore
import numpy as np
import pandas as pd
import pytest
from optuna.trial import TrialState

from afi_search.report.export import write_report
from afi_search.report.page import write_page
from afi_search.report.view import AXES, StudyView
from afi_search.space.objective import OBJECTIVES
from afi_search.study import Ledger
from afi_search.study.pareto import costs_of, front
from afi_search.study.study import Study
from tests.report.synthetic_records import study_info
from tests.search.studies import conductor_for, play, space_file


@pytest.mark.parametrize(
    "objectives", [["accuracy", "memory"], ["accuracy", "params", "memory"], ["accuracy"]]
)
def test_the_front_is_that_of_the_studys_objectives(tmp_path: Path, objectives: list[str]) -> None:
    pruner = {"name": "none"}
    file = space_file(
        objectives=objectives, search={"pruner": pruner, "trials": 25, "baselines": True}
    )
    _, conductor = conductor_for(file, tmp_path)
    play(conductor)

    view = StudyView.of(Study.open(tmp_path))
    write_report(view, tmp_path)
    write_page(view, tmp_path)

    complete = Ledger.open(tmp_path).trials((TrialState.COMPLETE,))
    costs = objectives[1:] or ["macs"]
    values = np.array(
        [[-t.intermediate_values[9], *(t.user_attrs[name] for name in costs)] for t in complete]
    )
    best = moocore.is_nondominated(values, keep_weakly=True)
    expected = {trial.number for trial, stands in zip(complete, best, strict=True) if stands}
    told = pd.read_csv(tmp_path / "front.csv").set_index("number")
    assert set(told.index) <= expected
    for trial in complete:  # costs that differ by less than 0.1 % are one cost
        if trial.number in expected - set(told.index):
            dearest = told[costs].le([1.001 * trial.user_attrs[name] for name in costs]).all(axis=1)
            assert (told["accuracy"][dearest] > trial.intermediate_values[9]).any()
    document = json.loads((tmp_path / "front.json").read_text())
    assert list(document["reference"]) == ["accuracy", *costs]
    assert document["hypervolume"] > 0
    heading = AXES[costs[0]].title
    assert heading in (tmp_path / "front.html").read_text()
    assert heading in (tmp_path / "report.html").read_text()


def test_tables_remember_what_they_are_about(tmp_path: Path) -> None:
    ledger, conductor = conductor_for(space_file(objectives=["accuracy", "params"]), tmp_path)
    play(conductor)
    records = ledger.records()

    assert (
        costs_of(records) == costs_of(records[records["full"]].sort_values("macs")) == ("params",)
    )
    assert StudyView(records, study_info()).axis.column == "params"
    assert costs_of(front(records)) == ("params",)
    assert costs_of(pd.DataFrame(records.to_dict("records"))) == ("macs",)


def test_there_is_an_axis_for_every_objective() -> None:
    objectives = OBJECTIVES.names
    assert {"accuracy", *AXES} == set(objectives)
