from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afi_search.errors import UserError
from afi_search.model.onnx import write_exported, write_onnx
from tests.pictures import noise, trained

EVERY_FAMILY = [
    "mobilenetv2(B-r16)",
    "shufflenetv2(base-r4-eca)",
    "resnext29(base-r4)",
    "resnet20(B-r4-cbam-shared)",
]


def check_onnx(text: str, folder: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = trained(text)
    path = write_onnx(model, folder)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        images = noise(batch, 32)
        (got,) = session.run(["logits"], {"images": images.numpy()})
        assert torch.allclose(torch.from_numpy(got), model(images), rtol=1e-3, atol=1e-3)


def check_exported(text: str, folder: Path) -> None:
    model = trained(text)
    program = torch.export.load(write_exported(model, folder)).module()
    for batch in (1, 2, 5):
        images = noise(batch, 32)
        assert torch.allclose(program(images), model(images), rtol=1e-3, atol=1e-3)


def test_onnx_computes_the_same_for_any_batch(tmp_path: Path) -> None:
    check_onnx("resnet20(base-r4, off, B-r16-se)", tmp_path)


def test_torch_export_computes_the_same_for_any_batch(tmp_path: Path) -> None:
    check_exported("resnet20(base-r4, off, B-r16-se)", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("text", EVERY_FAMILY)
def test_every_family_leaves_torch(tmp_path: Path, text: str) -> None:
    check_onnx(text, tmp_path)
    check_exported(text, tmp_path)


@pytest.mark.parametrize("there", [{}, {"model.pt2": "an earlier one"}])
def test_a_file_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: dict[str, str]
) -> None:
    for name, content in there.items():
        (tmp_path / name).write_text(content)
    model = trained("resnet20")
    monkeypatch.setattr(type(model), "__call__", lambda self, images: torch.zeros(len(images), 10))

    with pytest.raises(UserError, match=r"model\.pt2: its logits differ"):
        write_exported(model, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == there
