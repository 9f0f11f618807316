"""afi-search analyse on networks that were really trained, if only a little."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from afi_search import data
from afi_search.analysis import memory
from afi_search.cli.main import app
from afi_search.cli.views import analyse
from afi_search.nn import build
from afi_search.space import Recipe, SpaceFile
from afi_search.train import save, seed_everything, trial_trainer
from tests.search.studies import conductor_for


@pytest.fixture(autouse=True, scope="module")
def measured_once() -> Iterator[None]:
    """Measure each network's memory once: ResNet-50's, of the paper's Table 6, takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "measure_memory", cache(memory.measure_memory))
        yield


TEXTS = ("resnet20", "resnet20(base-r4, off, B-r4-eca-shared)")


def trained_study(folder: Path, dataset: str, data_folder: Path | None = None) -> Path:
    """A study of two trials, trained for an epoch on 64 images."""
    recipe = Recipe(epochs=1, batch_size=32, lr=0.01)
    file = SpaceFile.model_validate(
        {
            "architectures": TEXTS,
            "data": {"name": dataset, "train_subset": 64, "validation_subset": 100},
            "recipe": recipe.model_dump(),
            "search": {"trials": 2, "first": TEXTS},
        }
    )
    _, conductor = conductor_for(file, folder)
    subset = data.split(data.load(dataset, data_folder), train_subset=64, validation_subset=100)
    while conductor.has_next:
        assignment = conductor.next()
        assert assignment is not None
        seed_everything(assignment.seed)
        model = build(assignment.architecture, num_classes=subset.spec.num_classes, image_size=32)
        trainer = trial_trainer(
            model, recipe, subset, seed=assignment.seed, device=torch.device("cpu")
        )
        result = trainer.run_epoch()
        save(trainer.state_dict(), str(folder / "checkpoints" / f"{assignment.number:05d}"))
        conductor.report(assignment.number, [result.accuracy], result.seconds)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def check_what_is_written(study: Path) -> None:
    folder = study / "analysis"
    assert {path.name for path in folder.iterdir()} == {
        "gradcam.png",
        "selectivity.png",
        "selectivity.csv",
        "weights-1.png",
        "weights.csv",
        "memory.csv",
    }
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(2**24) or ()) > 50

    selectivity = rows(folder / "selectivity.csv")
    assert [row["architecture"] for row in selectivity] == [TEXTS[0]] * 9 + [TEXTS[1]] * 9
    assert all(0 < float(row["median"]) < 1 for row in selectivity)

    weights = rows(folder / "weights.csv")
    assert [(row["stage"], row["block"], row["source"]) for row in weights] == [
        (stage, block, source) for stage in "13" for block, source in ("21", "31", "32")
    ]
    assert float(weights[1]["weight"]) + float(weights[2]["weight"]) == pytest.approx(1, abs=1e-4)

    measured = rows(folder / "memory.csv")
    assert [row["architecture"] for row in measured] == [*TEXTS, "resnet50", "resnet50(base-r4)"]


def test_a_study_on_digits_is_analysed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = trained_study(tmp_path / "study", "digits")
    analyse(study)
    check_what_is_written(study)
    assert "gradcam.png" in capsys.readouterr().out
    told = json.loads(CliRunner().invoke(app, ["analyse", str(study), "--json"]).stdout)
    assert [row["architecture"] for row in told] == [*TEXTS, "resnet50", "resnet50(base-r4)"]
    assert told[0]["paper_training_mib"] is None
    assert told[1]["training_ratio"] > 0
    assert told[2]["paper_training_mib"] > 0


def test_a_study_on_cifar100_is_analysed(tmp_path: Path, cifar100_folder: Path) -> None:
    study = trained_study(tmp_path / "study", "cifar100", cifar100_folder)
    analyse(study, ["1"], data=str(cifar100_folder))
    check_what_is_written(study)


def test_a_trial_whose_weights_are_gone_is_told(tmp_path: Path) -> None:
    study = trained_study(tmp_path / "study", "digits")
    for checkpoint in (study / "checkpoints" / "00001").iterdir():
        checkpoint.unlink()
    result = CliRunner().invoke(app, ["analyse", str(study), "1"])
    assert result.exit_code == 2
    assert "trial 1 of" in result.stderr


def test_a_folder_without_a_study_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["analyse", str(tmp_path)])
    assert result.exit_code == 2
    assert str(tmp_path) in result.stderr
