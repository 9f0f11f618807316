from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from optuna.trial import TrialState

import afi_search
from afi_search.cli.run import promote_where_imagenet_is
from afi_search.cli.screen import demand_success
from afi_search.space import SpaceFileError
from afi_search.space.loading import SpaceDocument
from afi_search.space.schema import Promote
from afi_search.study.folder import StudyError
from afi_search.study.study import Study
from tests.search.studies import conductor_for, play
from tests.search.studies import space_file as studies_space_file

SPACE = """
backbone: resnet20
stages: {all: {width: [off, base], ratio: [4]}}
data: {name: digits}
recipe: &quick {epochs: 1, batch_size: 128, lr: 0.1}
search: {trials: 2, sampler: random}
presets:
  further:
    confirm: {seeds: 2}
"""


def space_file(folder: Path, more: str = "") -> Path:
    path = folder / "space.yaml"
    path.write_text(SPACE + more)
    return path


def test_confirmation_is_off_unless_the_file_or_a_preset_says_so(tmp_path: Path) -> None:
    path = space_file(tmp_path)
    document = SpaceDocument.read(path)
    assert document.resolve().confirm is None
    further = document.resolve("further").confirm
    assert further is not None
    assert (further.seeds, further.recipe.epochs) == (2, 300)

    both = SpaceDocument.read(space_file(tmp_path, "confirm: {top: 4, recipe: *quick}")).resolve(
        "further"
    )
    assert both.confirm is not None
    assert (both.confirm.top, both.confirm.seeds, both.confirm.recipe.epochs) == (4, 2, 1)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("confirm: {seeds: 1}", "confirm.seeds: 1 must be greater than or equal to 2"),
        ("confirm: {recipe: {epoch: 3}}", "Did you mean 'epochs'?"),
        ("promote: {}", "resnet20 is not made for ImageNet; name a backbone"),
        ("promote: {backbone: resnet32, stages: [1, 2, 3]}", "resnet32 is not made for ImageNet"),
        ("promote: {backbone: resnet50, stages: [1, 2]}", "resnet50 has 4 stages and 2 are"),
        ("promote: {stages: [1, 2, 3]}", "is for another backbone; name it in 'backbone'"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    tmp_path: Path, section: str, message: str
) -> None:
    with pytest.raises(SpaceFileError) as caught:
        SpaceDocument.read(space_file(tmp_path, section))
    assert message in str(caught.value)


def test_without_imagenet_the_command_that_goes_on_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promote_where_imagenet_is(tmp_path, Promote(data="/there/is/none"), None)
    assert f"afi-search promote {tmp_path} --data IMAGENET" in capsys.readouterr().out


def test_a_study_whose_trials_were_all_pruned_is_no_success(tmp_path: Path) -> None:
    ledger, conductor = conductor_for(studies_space_file(), tmp_path)
    for _ in range(2):
        assignment = conductor.next()
        assert assignment is not None
        ledger.finish(assignment.number, TrialState.PRUNED)
    with pytest.raises(StudyError, match="all 2 trials were pruned, so that there is no front"):
        demand_success(Study.open(tmp_path))


def test_a_study_whose_trials_all_failed_is_no_success(tmp_path: Path) -> None:
    _, conductor = conductor_for(studies_space_file(), tmp_path)
    demand_success(Study.open(tmp_path))
    for reason in ("RuntimeError: no memory", "another"):
        assignment = conductor.next()
        assert assignment is not None
        conductor.fail(assignment.number, reason)
    with pytest.raises(StudyError, match=r"all 2 trials failed\. Trial 0: RuntimeError: no memory"):
        demand_success(Study.open(tmp_path))

    play(conductor)
    demand_success(Study.open(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_command_goes_from_the_space_file_to_a_model(pictures: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        "{epochs: 1, batch_size: 8, train_crop: 32, eval_resize: 32, eval_crop: 32, drops_at: []}"
    )
    more = (
        "confirm: {top: 1, seeds: 2, baselines: false, recipe: *quick}\n"
        f"promote: {{backbone: shufflenetv2, stages: [1, 2, 3], data: {pictures}, classes: 3,"
        f" recipe: {recipe}}}\n"
    )
    path = space_file(tmp_path, more)
    command = [sys.executable, "-m", "afi_search.run", str(path), "--preset", "none"]
    done = subprocess.run(
        [*command, "--studies", str(tmp_path / "studies"), "--name", "s"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    study = tmp_path / "studies" / "s"
    confirmed = pd.read_csv(study / "confirm" / "confirmed.csv")
    assert list(confirmed["seeds"]) == [2]
    (folder,) = (study / "promote").iterdir()
    model = afi_search.load(folder / "model")
    assert model.architecture.backbone == "shufflenetv2"
    assert model.facts.training["study"] == "s"
