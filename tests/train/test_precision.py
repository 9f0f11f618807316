from __future__ import annotations

import shutil
import time

import pytest
import torch
from torch import nn
from torch.func import functional_call

from afi_search.nn import build
from afi_search.train import autocast_dtype, precision, resolve_precision
from afi_search.train.precision import Narrowed, cpu_computes_bf16, narrowed_by_autocast
from tests.train.networks import network

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, False),
        ({"avx2": True}, False),
        ({"neon": True, "bf16": True}, False),
        ({}, False),
    ],
)
def test_a_cpu_computes_bf16_where_it_has_the_instructions(capabilities, expected):
    assert cpu_computes_bf16(capabilities) is expected


def test_what_is_named_is_taken_and_auto_asks_the_device(monkeypatch):
    assert autocast_dtype("fp32", CPU) is None
    assert autocast_dtype("bf16", CPU) is torch.bfloat16

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert autocast_dtype("auto", CPU) is torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert autocast_dtype("auto", CPU) is None
    assert autocast_dtype("auto", torch.device("meta")) is None


@pytest.fixture
def measured(monkeypatch, tmp_path) -> list[str]:
    """A device with bf16 and a cache of its own; what will be measured, in order."""
    answers = ["bf16", "fp32"]
    monkeypatch.setattr(precision, "computes_bf16", lambda device: True)
    monkeypatch.setattr(precision, "user_cache_path", lambda name: tmp_path / "cache")
    monkeypatch.setattr(precision, "faster", lambda *given: answers.pop(0))
    return answers


def settle(folder, named="auto", name="resnet20") -> str:
    return resolve_precision(
        named, name, network, batch_size=4, image_size=32, device=CPU, folder=str(folder)
    )


def test_a_device_is_measured_once_a_backbone(measured, tmp_path):
    assert settle(tmp_path / "one") == settle(tmp_path / "two") == "bf16"
    assert settle(tmp_path / "one", name="resnet110") == "fp32"
    assert not measured


def test_a_study_keeps_its_precision_where_another_would_be_measured(measured, tmp_path):
    assert settle(tmp_path / "study") == "bf16"
    shutil.rmtree(tmp_path / "cache")

    assert settle(tmp_path / "study") == "bf16"
    assert settle(tmp_path / "other") == "fp32"


def test_without_a_cache_to_write_to_it_is_measured_again(measured, tmp_path):
    (tmp_path / "cache").write_text("a file is in its place")
    assert settle(tmp_path / "one") == "bf16"
    assert settle(tmp_path / "two") == "fp32"


def test_on_a_gpu_it_is_measured_with_the_recipe_s_batch(monkeypatch, tmp_path):
    batches = []
    monkeypatch.setattr(precision, "computes_bf16", lambda device: True)
    monkeypatch.setattr(precision, "_cache", lambda step, device: tmp_path / step)

    def faster(model, images, device):
        batches.append(len(images))
        return "bf16"

    monkeypatch.setattr(precision, "faster", faster)
    for name in ("cuda", "cpu"):
        device, folder = torch.device(name), str(tmp_path / name)
        resolve_precision(
            "auto", "a", network, batch_size=512, image_size=32, device=device, folder=folder
        )

    assert batches == [512, 128]


def test_a_precision_that_does_not_fit_into_memory_is_not_taken(monkeypatch):
    def run(step, images):
        if step == "fp32":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    monkeypatch.setattr(precision, "_step", lambda model, images, precision: precision)
    monkeypatch.setattr(precision, "_time", run)

    assert precision.faster(nn.Identity(), torch.zeros(1, 3, 8, 8), CPU) == "bf16"


def test_what_the_recipe_names_is_not_measured(measured, tmp_path):
    assert settle(tmp_path, "fp32") == "fp32"
    assert settle(tmp_path, "bf16") == "bf16"
    assert len(measured) == 2


def test_without_bf16_in_hardware_there_is_nothing_to_measure(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "computes_bf16", lambda device: False)
    assert settle(tmp_path) == "fp32"
    assert len(measured) == 2


def test_the_faster_one_is_taken():
    class Slow(nn.Linear):
        """Slow in one precision."""

        slow_in_bf16: bool

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02 if torch.is_autocast_enabled("cpu") == self.slow_in_bf16 else 0)
            return super().forward(x.flatten(1))

    for slow_in_bf16, expected in ((True, "fp32"), (False, "bf16")):
        model = Slow(48, 4)
        model.slow_in_bf16 = slow_in_bf16
        assert precision.faster(model, torch.rand(2, 3, 4, 4), CPU) == expected


@pytest.mark.parametrize(("image_size", "batch", "images"), [(32, 512, 128), (224, 64, 5)])
def test_a_cpu_measures_few_pixels(measured, tmp_path, monkeypatch, image_size, batch, images):
    shapes = []

    def faster(model, pixels, device):
        shapes.append(tuple(pixels.shape))
        return "fp32"

    monkeypatch.setattr(precision, "faster", faster)
    options = {"batch_size": batch, "image_size": image_size, "device": CPU}
    resolve_precision("auto", "resnet20", network, folder=str(tmp_path), **options)
    assert shapes == [(images, 3, image_size, image_size)]


@pytest.mark.parametrize("text", ["resnet20(B-r8-se, base-r4-cbam, off)", "resnet20"])
def test_weights_narrowed_at_once_give_what_autocast_gives(text):
    torch.manual_seed(0)
    model = build(text, num_classes=10, image_size=32).to(memory_format=torch.channels_last)
    images = torch.randn(3, 3, 32, 32).to(memory_format=torch.channels_last)
    found = []
    for at_once in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            named = narrowed_by_autocast(model) if at_once else {}
            narrow = Narrowed.apply(torch.bfloat16, *named.values()) if at_once else ()
            logits = functional_call(model, dict(zip(named, narrow, strict=True)), (images,))
        logits.float().square().mean().backward()
        found.append([logits, *(parameter.grad for parameter in model.parameters())])

    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
