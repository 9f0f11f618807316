"""Plain ImageNet backbones are torchvision's, and warm starts load what AFI leaves as it is."""

from __future__ import annotations

import argparse
import logging
import re
import subprocess
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from afi_search.errors import UserError
from afi_search.nn import build, warm_start
from afi_search.space import Architecture
from tests.typed import there

TWINS = {
    "resnet50": torchvision.models.resnet50,
    "resnet101": torchvision.models.resnet101,
    "resnet152": torchvision.models.resnet152,
    "resnext50": torchvision.models.resnext50_32x4d,
    "mobilenetv2": torchvision.models.mobilenet_v2,
    "shufflenetv2": torchvision.models.shufflenet_v2_x1_0,
}


def make_twin(backbone: str) -> torch.nn.Module:
    """Torchvision's model, with batch norms that are not the identity."""
    twin = TWINS[backbone](weights=None)
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
                there(module.running_mean).uniform_(-0.2, 0.2)
                there(module.running_var).uniform_(0.5, 1.5)
    return twin.eval()


@pytest.fixture
def saved(tmp_path):
    def save(content, name="weights.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize("backbone", TWINS)
def test_plain_backbone_has_torchvisions_parameters_and_output(backbone, saved):
    twin = make_twin(backbone)
    model = build(Architecture.plain(backbone), num_classes=1000, image_size=64)

    report = warm_start(model, saved(twin.state_dict()))

    assert (report.fresh, report.unused) == ((), ())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in twin.parameters())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = twin(x)
        torch.testing.assert_close(
            model.eval()(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
        )


def test_a_warm_start_lists_what_was_and_was_not_loaded(saved):
    twin = torchvision.models.resnet50(weights=None)
    model = build(
        Architecture.parse("resnet50(off, B-r16, base-r4, off)"), num_classes=10, image_size=64
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    report = warm_start(model, saved(twin.state_dict()))

    after, source = model.state_dict(), twin.state_dict()
    assert set(report.loaded) | set(report.fresh) == set(after)
    assert all(torch.equal(after[name], source[name]) for name in report.loaded)
    assert all(torch.equal(after[name], before[name]) for name in report.fresh)
    changed = {name for name in report.fresh if ".afi." not in name}
    assert changed == {
        "fc.weight",
        "fc.bias",
        *(f"layer2.{block}.conv2.weight" for block in (1, 2, 3)),
        *(f"layer3.{block}.conv1.weight" for block in range(1, 6)),
        *(
            f"layer3.{block}.bn1.{part}"
            for block in range(1, 6)
            for part in ("weight", "bias", "running_mean", "running_var")
        ),
    }
    assert set(report.unused) == changed


@pytest.mark.parametrize("backbone", ["mobilenetv2", "shufflenetv2", "resnext50", "seresnet50"])
@pytest.mark.parametrize("image_size", [32, 64])
def test_what_a_warm_start_loads_is_of_the_same_place(backbone, image_size, saved):
    twin = make_twin(backbone.removeprefix("se"))
    model = build(Architecture.parse(f"{backbone}(base-r4)"), num_classes=10, image_size=image_size)
    report = warm_start(model, saved(twin.state_dict()))
    loaded, theirs = model.state_dict(), iter(twin.state_dict().items())
    taken = [tensor for name, tensor in theirs if name not in report.unused]
    assert len(taken) == len(report.loaded) > len(loaded) // 3
    for name, tensor in zip(report.loaded, taken, strict=True):
        assert torch.equal(loaded[name], tensor)


class Anything:
    """What a training may have put beside its weights."""

    def __reduce__(self):
        return subprocess.check_call, (["false"],)


BESIDE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "args": {"args": argparse.Namespace(lr=0.1, out=Path("runs"), nested=argparse.Namespace(a=1))},
    "numpy": {"best": np.float64(0.7), "curve": np.arange(3)},
    "code": {"callback": Anything(), "counts": defaultdict(list, a=[1]), "when": datetime.now()},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("keys", ["model", "state_dict", "model_ema", "ema", "ema.module"])
def test_a_training_checkpoint_with_the_weights_inside_will_do(keys, beside, saved):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    content: dict[str, Any] = twin.state_dict()
    for key in reversed(keys.split(".")):
        content = {key: content, "epoch": 3}
    path = saved({**content, **BESIDE[beside]})
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert warm_start(model, path).fresh == ()


@pytest.mark.parametrize("zipped", [False, True])
def test_arguments_beside_the_weights_are_no_hindrance_in_older_files(zipped, tmp_path):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    content = {"model": twin.state_dict(), "args": argparse.Namespace(lr=0.1)}
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert warm_start(model, path).fresh == ()


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module."),
        *("model.backbone.", "module.encoder_q.", "0."),
    ],
)
@pytest.mark.parametrize("backbone", ["shufflenetv2", "mobilenetv2"])
def test_names_of_wrapped_networks_are_understood(prefix, backbone, saved):
    twin = make_twin(backbone)
    path = saved({prefix + name: tensor for name, tensor in twin.state_dict().items()})
    model = build(Architecture.plain(backbone), num_classes=1000, image_size=64)
    report = warm_start(model, path)
    assert (report.fresh, report.unused) == ((), ())


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_safetensors_are_read(name, tmp_path):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    save_file(twin.state_dict(), tmp_path / name)
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert warm_start(model, tmp_path / name).fresh == ()
    cut = (tmp_path / name).read_bytes()[:-1000]
    (tmp_path / name).write_bytes(cut)
    with pytest.raises(UserError, match="cut short or damaged"):
        warm_start(model, tmp_path / name)


def test_the_moving_average_is_taken_where_there_is_one(saved):
    plain, average = (torchvision.models.shufflenet_v2_x1_0(weights=None) for _ in range(2))
    averaged = {f"module.{name}": tensor for name, tensor in average.state_dict().items()}
    path = saved(
        {"model": plain.state_dict(), "model_ema": {"n_averaged": torch.tensor(3), **averaged}}
    )
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert warm_start(model, path).unused == ("n_averaged",)
    assert torch.equal(model.state_dict()["fc.weight"], average.fc.weight)


@pytest.mark.parametrize(
    ("backbone", "theirs"),
    [("resnet50", "resnet101"), ("resnet101", "resnet50"), ("resnet152", "resnet101")],
)
@pytest.mark.parametrize("afi", ["", "(base-r4)"])
def test_weights_of_another_depth_are_refused(backbone, theirs, afi, saved):
    path = saved(TWINS[theirs](weights=None).state_dict())
    model = build(Architecture.parse(backbone + afi), num_classes=10, image_size=64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"another depth: its layer[23] has \d+ blocks"):
        warm_start(model, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tensor", ["conv1.0.weight", "stage2.0.branch1.1.running_mean"])
def test_weights_that_are_not_finite_are_refused(tensor, value, saved):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    with torch.no_grad():
        twin.state_dict()[tensor].view(-1)[3] = value
    model = build(Architecture.plain("shufflenetv2"), num_classes=10, image_size=64)
    with pytest.raises(UserError, match=f"NaN or infinity in {re.escape(tensor)};"):
        warm_start(model, saved(twin.state_dict()))


def test_a_whole_network_is_told_from_its_weights(saved):
    path = saved(torchvision.models.shufflenet_v2_x1_0(weights=None))
    model = build(Architecture.plain("shufflenetv2"), num_classes=10, image_size=64)
    with pytest.raises(UserError, match="holds a whole network"):
        warm_start(model, path)


def test_build_takes_pretrained_weights_and_logs_what_it_took(saved, caplog):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    path = saved(twin.state_dict())
    with caplog.at_level(logging.INFO, logger="afi_search.nn.build"):
        model = build(
            Architecture.plain("shufflenetv2"), num_classes=10, image_size=64, pretrained=path
        )
    assert torch.equal(model.state_dict()["conv1.0.weight"], twin.conv1[0].weight)
    assert "2 drawn anew:\n  fc.weight\n  fc.bias" in caplog.text


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no such file"),
        (b"not a checkpoint", "cut short"),
        ([1, 2], "holds no state dict"),
        ({"conv1.weight": torch.empty(3, device="meta")}, "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        ({"something": torch.zeros(3)}, "none of its 1 tensors fits ResNet"),
        ({"features.99.conv.7.weight": torch.zeros(3)}, "none of its 1 tensors fits"),
    ],
)
def test_a_file_without_weights_is_a_clear_error(content, complaint, saved, tmp_path):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        saved(content)
    with pytest.raises(UserError, match=complaint) as raised:
        build(Architecture.plain("resnet50"), num_classes=10, image_size=64, pretrained=path)
    assert str(path) in str(raised.value)
