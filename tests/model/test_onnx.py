from __future__ import annotations

import io

import pytest
import torch

from afi_search.model.onnx import to_exported, to_onnx
from tests.pictures import noise, trained

EVERY_FAMILY = [
    "mobilenetv2(B-r16)",
    "shufflenetv2(base-r4-eca)",
    "resnext29(base-r4)",
    "resnet20(B-r4-cbam-shared)",
]


def check_onnx(text: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = trained(text)
    session = onnxruntime.InferenceSession(to_onnx(model), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        images = noise(batch, 32)
        (got,) = session.run(["logits"], {"images": images.numpy()})
        assert torch.allclose(torch.from_numpy(got), model(images), rtol=1e-3, atol=1e-3)


def check_exported(text: str) -> None:
    model = trained(text)
    program = torch.export.load(io.BytesIO(to_exported(model))).module()
    for batch in (1, 2, 5):
        images = noise(batch, 32)
        assert torch.allclose(program(images), model(images), rtol=1e-3, atol=1e-3)


def test_onnx_computes_the_same_for_any_batch() -> None:
    check_onnx("resnet20(base-r4, off, B-r16-se)")


def test_torch_export_computes_the_same_for_any_batch() -> None:
    check_exported("resnet20(base-r4, off, B-r16-se)")


@pytest.mark.slow
@pytest.mark.parametrize("text", EVERY_FAMILY)
def test_every_family_leaves_torch(text: str) -> None:
    check_onnx(text)
    check_exported(text)
