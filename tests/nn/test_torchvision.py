"""Plain ImageNet backbones are torchvision's, whose weights load where AFI changes nothing."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import subprocess
import zipfile
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
from afi_search.nn import build, load_pretrained
from afi_search.nn.pretrained import digest
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

    report = load_pretrained(model, saved(twin.state_dict()))

    assert (report.fresh, report.unused) == ((), ())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in twin.parameters())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = twin(x)
        torch.testing.assert_close(
            model.eval()(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
        )


def test_loading_lists_what_was_and_was_not_loaded(saved):
    twin = torchvision.models.resnet50(weights=None)
    model = build(
        Architecture.parse("resnet50(off, B-r16, base-r4, off)"), num_classes=10, image_size=64
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    report = load_pretrained(model, saved(twin.state_dict()))

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
def test_what_is_loaded_is_of_the_same_place(backbone, image_size, saved):
    twin = make_twin(backbone.removeprefix("se"))
    model = build(Architecture.parse(f"{backbone}(base-r4)"), num_classes=10, image_size=image_size)
    report = load_pretrained(model, saved(twin.state_dict()))
    loaded, theirs = model.state_dict(), iter(twin.state_dict().items())
    taken = [tensor for name, tensor in theirs if name not in report.unused]
    assert len(taken) == len(report.loaded) > len(loaded) // 3
    for name, tensor in zip(report.loaded, taken, strict=True):
        assert torch.equal(loaded[name], tensor)


class Anything:
    """What a training may have put beside its weights."""

    def __reduce__(self):
        return subprocess.check_call, (["false"],)


class Settings(dict[str, Any]):
    """A kind of dict, as settings often are."""


class Steps(list[Any]):
    """A kind of list."""


class Blocked:
    """What torch lets nobody load."""

    def __reduce__(self):
        return os.system, ("false",)


BESIDE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "args": {"args": argparse.Namespace(lr=0.1, out=Path("runs"), nested=argparse.Namespace(a=1))},
    "numpy": {"best": np.float64(0.7), "curve": np.arange(3)},
    "code": {"callback": Anything(), "counts": defaultdict(list, a=[1]), "when": datetime.now()},
    "settings": {"a": Settings(lr=0.1, of=Settings(b=Steps([1, 2]))), "b": Steps([Steps([3])])},
}


@pytest.mark.parametrize(
    ("keys", "beside"),
    zip(["model", "state_dict", "model_ema", "ema", "ema.module"], BESIDE, strict=True),
)
def test_a_training_checkpoint_with_the_weights_inside_will_do(keys, beside, saved):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    content: dict[str, Any] = twin.state_dict()
    for key in reversed(keys.split(".")):
        content = {key: content, "epoch": 3}
    path = saved({**content, **BESIDE[beside]})
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert load_pretrained(model, path).fresh == ()


@pytest.mark.parametrize("zipped", [False, True])
def test_arguments_beside_the_weights_are_no_hindrance_in_older_files(zipped, tmp_path):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    content = {"model": twin.state_dict(), "args": argparse.Namespace(lr=0.1)}
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert load_pretrained(model, path).fresh == ()


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
    report = load_pretrained(model, path)
    assert (report.fresh, report.unused) == ((), ())


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]
)
def test_names_of_networks_whose_parts_are_wrapped_are_understood(wrapper, saved):
    twin = make_twin("shufflenetv2")
    part = f"module.stage2.{wrapper}.0.{wrapper}."
    names = {name: f"module.{name}".replace("module.stage2.0.", part) for name in twin.state_dict()}
    path = saved({names[name]: tensor for name, tensor in twin.state_dict().items()})
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    report = load_pretrained(model, path)
    assert (report.fresh, report.unused) == ((), ())


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_safetensors_are_read(name, tmp_path):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    save_file(twin.state_dict(), tmp_path / name)
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert load_pretrained(model, tmp_path / name).fresh == ()
    cut = (tmp_path / name).read_bytes()[:-1000]
    (tmp_path / name).write_bytes(cut)
    with pytest.raises(UserError, match="cut short or damaged"):
        load_pretrained(model, tmp_path / name)


def test_the_moving_average_is_taken_where_there_is_one(saved):
    plain, average = (torchvision.models.shufflenet_v2_x1_0(weights=None) for _ in range(2))
    averaged = {f"module.{name}": tensor for name, tensor in average.state_dict().items()}
    path = saved(
        {"model": plain.state_dict(), "model_ema": {"n_averaged": torch.tensor(3), **averaged}}
    )
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert load_pretrained(model, path).unused == ("n_averaged",)
    assert torch.equal(model.state_dict()["fc.weight"], average.fc.weight)


@pytest.mark.parametrize(
    "ema",
    [
        None,
        {"decay": 0.999, "updates": 3},
        {"decay": torch.tensor(0.999)},
        [torch.zeros(3)],
    ],
)
@pytest.mark.parametrize("key", ["model", "net", "weights", "teacher.backbone"])
def test_the_state_dict_is_found_under_any_key(key, ema, saved):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    content: dict[str, Any] = twin.state_dict()
    for part in reversed(key.split(".")):
        content = {"ema": ema, part: content, "acc": 93.1}
    content["itself"] = content
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert load_pretrained(model, saved(content)).fresh == ()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_in_shards_are_read_by_their_index(kind, tmp_path):
    twin = torchvision.models.resnet50(weights=None).state_dict()
    names, index = list(twin), dict[str, str]()
    for part, own in enumerate((names[:150], names[150:])):
        file = tmp_path / f"model-{part}.{kind}"
        index |= dict.fromkeys(own, file.name)
        (save_file if kind == "safetensors" else torch.save)({n: twin[n] for n in own}, file)
    path = tmp_path / f"model.{kind}.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    model = build(Architecture.plain("resnet50"), num_classes=1000, image_size=64)
    assert load_pretrained(model, path).fresh == ()
    for part in (0, 1):
        with pytest.raises(UserError, match=r"or it is one shard of several"):
            load_pretrained(model, tmp_path / f"model-{part}.{kind}")
    before = digest(path)
    (tmp_path / f"model-1.{kind}").write_bytes(b"other content")
    assert digest(path) not in (before, "")
    (tmp_path / f"model-1.{kind}").unlink()
    assert digest(path) == ""
    for content in ("[]", "{}", '{"weight_map": 3}', "no JSON", "\udce9"):
        index = tmp_path / "other.index.json"
        index.write_text(content, errors="surrogateescape")
        assert digest(index) == ""
    with pytest.raises(UserError, match=f"model-1.{kind}: there is no such file"):
        load_pretrained(model, path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float64])
def test_weights_of_another_precision_are_read(dtype, saved):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None).state_dict()
    content = {n: t.to(dtype) if t.is_floating_point() else t for n, t in twin.items()}
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    assert load_pretrained(model, saved(content)).fresh == ()
    assert torch.equal(model.state_dict()["fc.weight"], content["fc.weight"].float())


@pytest.mark.parametrize(
    ("convert", "complaint"),
    [
        (lambda t: t.to(torch.int8), "values of torch.int8 in conv1.0.weight"),
        (lambda t: t.to(torch.complex64), "values of torch.complex64 in conv1.0.weight"),
        (lambda t: t.to_sparse(), "torch.sparse_coo tensors in conv1.0.weight"),
        (lambda t: (t * 1e30).half(), "NaN or infinity in conv1.0.weight"),
        (lambda t: t.permute(2, 3, 1, 0).contiguous(), "none of the convolutions among its"),
    ],
)
def test_weights_that_were_converted_are_refused(convert, complaint, saved):
    twin = make_twin("shufflenetv2").state_dict()
    path = saved({n: convert(t) if t.dim() == 4 else t for n, t in twin.items()})
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    with pytest.raises(UserError, match=complaint):
        load_pretrained(model, path)


def test_negative_variances_are_refused(saved):
    twin = make_twin("shufflenetv2").state_dict()
    twin["conv1.1.running_var"][3] = -1.0
    model = build(Architecture.plain("shufflenetv2"), num_classes=1000, image_size=64)
    with pytest.raises(UserError, match=r"negative variances in conv1.1.running_var;"):
        load_pretrained(model, saved(twin))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", [0, 0.0001, 0.5, 0.9999])
def test_a_file_cut_anywhere_is_refused(place, zipped, tmp_path):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    path = tmp_path / "weights.pth"
    torch.save(twin.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * place)])
    model = build(Architecture.plain("shufflenetv2"), num_classes=10, image_size=64)
    with pytest.raises(UserError, match=r"weights.pth: is no file of weights, or is cut short: \S"):
        load_pretrained(model, path)


def test_a_hole_in_a_file_is_told(saved):
    path = saved(torchvision.models.shufflenet_v2_x1_0(weights=None).state_dict())
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 9000] = bytes(9000)
    path.write_bytes(content)
    model = build(Architecture.plain("shufflenetv2"), num_classes=10, image_size=64)
    with pytest.raises(UserError, match=r"its part \S+ is damaged"):
        load_pretrained(model, path)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"),
            "begins with 'ver",
        ),
        (lambda p: p.write_text("<!DOCTYPE html>"), "begins with '<!DOCTYPE html>'"),
        (lambda p: zipfile.ZipFile(p, "w").writestr("a/b.txt", "x"), "cut short"),
        (lambda p: np.savez(p.open("wb"), x=np.ones(3)), "cut short"),
        (lambda p: zipfile.ZipFile(p, "w").writestr("a/constants.pkl", "x"), "torch.jit.save"),
        (lambda p: torch.save({"a": Blocked()}, p), "it asks for posix.system, which is code"),
        (lambda p: p.mkdir(), "there is no model.safetensors"),
        (os.mkfifo, "it is no file"),
        (lambda p: p.symlink_to(p), "symbolic links"),
    ],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_what_is_no_file_of_weights_is_told_with_the_reason(make, complaint, name, tmp_path):
    make(tmp_path / name)
    model = build(Architecture.plain("resnet50"), num_classes=10, image_size=64)
    with pytest.raises(UserError, match=complaint) as caught:
        load_pretrained(model, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_url_and_a_name_that_no_file_can_have_are_told():
    model = build(Architecture.plain("resnet50"), num_classes=10, image_size=64)
    with pytest.raises(UserError, match=r"https://host/resnet50.pth: is a URL; download it"):
        load_pretrained(model, "https://host/resnet50.pth")
    with pytest.raises(UserError, match="File name too long"):
        load_pretrained(model, "x" * 300)


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
        load_pretrained(model, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tensor", ["conv1.0.weight", "stage2.0.branch1.1.running_mean"])
def test_weights_that_are_not_finite_are_refused(tensor, value, saved):
    twin = torchvision.models.shufflenet_v2_x1_0(weights=None)
    with torch.no_grad():
        twin.state_dict()[tensor].view(-1)[3] = value
    model = build(Architecture.plain("shufflenetv2"), num_classes=10, image_size=64)
    with pytest.raises(UserError, match=f"NaN or infinity in {re.escape(tensor)};"):
        load_pretrained(model, saved(twin.state_dict()))


def test_a_whole_network_is_told_from_its_weights(saved):
    path = saved(torchvision.models.shufflenet_v2_x1_0(weights=None))
    model = build(Architecture.plain("shufflenetv2"), num_classes=10, image_size=64)
    with pytest.raises(UserError, match="holds a whole network"):
        load_pretrained(model, path)


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
