from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afi_search.api import run_study
from afi_search.search.proposer import Proposer
from afi_search.search.warm_start import evidence
from afi_search.space import Space
from afi_search.study.folder import StudyError, StudyFile
from afi_search.study.study import Study
from tests.search.studies import conductor_costs, conductor_for, open_study, play, space_file


def earlier(folder: Path, **changes: Any) -> Path:
    _, conductor = conductor_for(space_file(search={"trials": 30}, **changes), folder)
    play(conductor)
    return folder


def begun(folder: Path, other: Path, **search: Any) -> tuple[Study, Proposer]:
    file = space_file(search={"warm_start": str(other), **search})
    open_study(folder, StudyFile("new", "", "", file, {}))
    study, space, costs = Study.open(folder), Space(file), conductor_costs(file)
    known = evidence(study, space, costs)
    return study, Proposer(space, costs, evidence=known)


def test_the_sampler_learns_from_the_other_study_and_trains_nothing_of_it_again(
    tmp_path: Path,
) -> None:
    other = earlier(tmp_path / "other")
    _, proposer = begun(tmp_path / "new", other)
    first = proposer.propose(0)
    assert first is not None
    assert first.system_attrs, "without evidence, the first ten are drawn at random"
    assert first.architecture.text not in set(Study.open(other).records()["architecture"])


def test_baselines_are_trained_all_the_same(tmp_path: Path) -> None:
    other = earlier(tmp_path / "other")
    _, proposer = begun(tmp_path / "new", other, baselines=True)
    first = proposer.propose(0)
    assert first is not None
    assert first.architecture.text == "resnet20"


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_optunas_samplers_take_it_too(tmp_path: Path, sampler: str) -> None:
    other = earlier(tmp_path / "other")
    _, proposer = begun(tmp_path / "new", other, sampler=sampler)
    assert proposer.propose(0) is not None


def test_what_was_learned_is_kept_where_the_other_study_goes(tmp_path: Path) -> None:
    other = earlier(tmp_path / "other")
    study, proposer = begun(tmp_path / "new", other)
    other.rename(tmp_path / "gone")
    again = Study.open(study.folder)
    space, costs = Space(again.file.space), conductor_costs(again.file.space)
    known = evidence(again, space, costs)
    assert len(known) == 30
    one = Proposer(space, costs, evidence=known).propose(0)
    other_one = proposer.propose(0)
    assert one is not None
    assert other_one is not None
    assert one.architecture == other_one.architecture


def test_a_study_that_does_not_compare_is_refused(tmp_path: Path) -> None:
    other = earlier(tmp_path / "other", recipe={"epochs": 5})
    with pytest.raises(StudyError, match="other than this study's: recipe"):
        begun(tmp_path / "new", other)
    with pytest.raises(StudyError, match="is not a study's folder"):
        begun(tmp_path / "newer", tmp_path / "nowhere")


def test_what_is_refused_leaves_no_study(tmp_path: Path) -> None:
    other = earlier(tmp_path / "other")
    settings = {"search.warm_start": str(other)}
    with pytest.raises(StudyError, match="other than this study's"):
        run_study("spaces/digits.yaml", name="new", studies=tmp_path, settings=settings)
    assert not (tmp_path / "new").exists()
