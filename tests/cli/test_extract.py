from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import afi_search as afi
from afi_search.cli.main import app
from afi_search.space import SpaceFile
from afi_search.study.folder import SUPERNET, StudyFile
from afi_search.study.study import Study
from afi_search.train import save

TEXT = "shufflenetv2(base-r4, off, B-r4-se)"
FILE = SpaceFile.model_validate(
    {
        "backbone": "shufflenetv2",
        "stages": {"all": {"choice": ["off", "base-r4", "B-r4-se"]}},
        "data": {"name": "digits", "train_subset": 64, "validation_subset": 40},
        "search": {"strategy": "supernet"},
    }
)


def test_a_study_without_a_supernet_is_told_how_to_train_one(tmp_path: Path) -> None:
    with Study.begin(tmp_path / "study", StudyFile("study", "", "", FILE, {})):
        pass
    result = CliRunner().invoke(app, ["extract", str(tmp_path / "study"), "shufflenetv2"])
    assert result.exit_code == 2
    assert "has no supernet" in result.output and "strategy: supernet" in result.output


def test_before_the_supernets_first_epoch_it_is_told_which_command_goes_on(tmp_path: Path) -> None:
    asked = StudyFile("study", "", "", FILE, {"command": "python -m afi_search.run shufflenet"})
    with Study.begin(tmp_path / "study", asked), Study.begin(tmp_path / "study" / SUPERNET, asked):
        pass
    result = CliRunner().invoke(app, ["extract", str(tmp_path / "study"), "shufflenetv2"])
    assert result.exit_code == 2
    assert "no checkpoint yet" in result.output
    assert "goes on with it: python -m afi_search.run shufflenet" in result.output


def command(folder: Path, *arguments: object) -> str:
    """Run `afi-search` as a person does; return what it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    ended = subprocess.run(
        [sys.executable, "-m", "afi_search", *map(str, arguments)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode == 0 and "Traceback" not in output, output
    return output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_is_extracted_is_loaded_predicts_is_exported_and_promoted(
    pictures: Path, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    state = {"model": afi.Supernet(afi.Space(FILE)).state_dict(), "epoch": 1}
    with Study.begin(tmp_path / "study", StudyFile("study", "", "", FILE, {})):
        inner = StudyFile("study-supernet", "", "", FILE, {})
        with Study.begin(tmp_path / "study" / SUPERNET, inner) as training:
            save(state, training.trial_checkpoints(0))
    (tmp_path / "tiny.yaml").write_text(
        "epochs: 1\nbatch_size: 8\nlr: 0.001\ntrain_crop: 32\neval_resize: 36\neval_crop: 32\n"
        "precision: fp32\n"
    )
    command(tmp_path, "extract", "study", TEXT, "--to", "model")
    model = afi.load(tmp_path / "model")
    assert str(model.architecture) == TEXT
    assert "inherited" in (tmp_path / "model" / "README.md").read_text()

    (picture,) = (pictures / "val" / "n02").glob("0.JPEG")
    guesses = model.predict(picture, top=2)
    predicted = command(tmp_path, "predict", "model", picture, "--top", 2)
    assert [guess.label in predicted for guess in guesses] == [True, True]

    command(tmp_path, "export", "model", "--to", "exported")
    exported = afi.load(tmp_path / "exported")
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(exported(pixels), model(pixels))
    written = {path.suffix for path in (tmp_path / "exported").iterdir()}
    assert written >= {".safetensors", ".json", ".md", ".onnx", ".pt2"}

    promoting = ("--data", pictures, "--classes", 3, "--recipe", "tiny.yaml", "--workers", 1)
    start = ("--architecture", TEXT, "--pretrained", "model", "--name", "p")
    told = command(tmp_path, "promote", "study", *promoting, *start)
    assert " tensors loaded, " in told
    promoted = afi.load(tmp_path / "study" / "promote" / "p" / "model")
    assert str(promoted.architecture) == TEXT and promoted.facts.num_classes == 3
