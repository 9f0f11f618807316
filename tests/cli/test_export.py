from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import typer
from torchvision.io import write_jpeg
from typer.testing import CliRunner, Result

import afi_search
from afi_search.cli.common import Command
from afi_search.cli.model import export, predict
from afi_search.model.from_checkpoint import read_checkpoint
from afi_search.model.model import Model, ModelError
from afi_search.study.folder import CONFIRM
from afi_search.train import save
from tests.pictures import noise, trained
from tests.promote.test_confirm import confirmation, play


def run(command: object, *arguments: object) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command(cls=Command)(command)  # type: ignore[type-var]
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_an_exported_folder_is_exported_again_folded(tmp_path: Path) -> None:
    model = trained("resnet20(base-r4)")
    model.save(tmp_path / "one")
    result = run(
        export,
        tmp_path / "one",
        "--to",
        tmp_path / "two",
        "--fold",
        "--no-onnx",
        "--no-torch-export",
    )
    assert result.exit_code == 0, result.output
    folded = afi_search.load(tmp_path / "two")

    assert folded.facts.batch_norms == "folded"
    assert torch.allclose(folded(noise(2, 32)), model(noise(2, 32)), rtol=1e-3, atol=1e-3)


def test_without_onnx_it_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("resnet20").save(tmp_path / "one")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run(export, tmp_path / "one", "--to", tmp_path / "two")
    assert result.exit_code == 2
    assert "--no-onnx" in result.output
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("before", [{}, {"model.pt2": b"an earlier one"}])
def test_a_file_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, bytes]
) -> None:
    trained("resnet20").save(tmp_path / "one")
    if before:
        trained("resnet20(base-r4)").save(tmp_path / "two", before)
    there = {path.name: path.read_bytes() for path in tmp_path.glob("two/*")}
    monkeypatch.setattr(Model, "__call__", lambda self, images: torch.zeros(len(images), 10))
    result = run(export, tmp_path / "one", "--to", tmp_path / "two", "--no-onnx")

    assert result.exit_code == 2
    assert "model.pt2: its logits differ" in result.output
    assert {path.name: path.read_bytes() for path in tmp_path.glob("two/*")} == there


def test_classes_of_imagenet_are_called_by_their_names(tmp_path: Path) -> None:
    model = trained("resnet20")
    wnids = ("n01440764", "n02102040", *model.facts.classes[2:])
    model.facts = model.facts.model_copy(update={"classes": wnids})
    model.save(tmp_path / "model")
    write_jpeg(torch.zeros(3, 40, 40, dtype=torch.uint8), str(tmp_path / "black.jpg"))
    told = run(predict, tmp_path / "model", tmp_path / "black.jpg", "--top", 10).output
    assert "tench" in told
    assert "English springer" in told
    assert "n01440764" not in told


def test_a_trials_checkpoint_knows_its_study(tmp_path: Path) -> None:
    """Two epochs of the study's 300: the accuracy is the one after them."""
    own = tmp_path / CONFIRM
    ledger, conductor = confirmation(own, 2, ["resnet20(base-r4)"])
    play(conductor)
    model = trained("resnet20(base-r4)")
    state = {"epoch": 2, "model": model.module.state_dict(), "identity": {}}
    file = save(state, str(own / "checkpoints" / "00001"))
    for place in (str(own / "checkpoints" / "00001"), file):
        exported = read_checkpoint(place)
        assert torch.equal(exported(noise(2, 32)), model(noise(2, 32)))
        assert str(exported.architecture) == "resnet20(base-r4)"
        assert exported.facts.training["trial"] == 1
        accuracy = ledger.records()["curve"][1][1]
        assert exported.facts.metrics == {"validation accuracy": accuracy}
    told = run(export, file, "--to", tmp_path / "model", "--no-onnx", "--no-torch-export").output
    assert "Its training has not ended: the weights are of epoch 2/300." in told


def test_where_there_is_no_checkpoint_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no checkpoint in it"):
        read_checkpoint(str(tmp_path))
    result = run(export, tmp_path)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_predict_prints_a_line_an_image(tmp_path: Path) -> None:
    trained("resnet20").save(tmp_path / "model")
    images = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for image in images:
        write_jpeg(torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8), str(image))
    result = run(predict, tmp_path / "model", *images, "--top", 2)

    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(map(str, images))
    assert all(line.count("class ") == 2 for line in lines)
    assert run(predict, tmp_path / "model", tmp_path / "c.jpg").exit_code == 2
