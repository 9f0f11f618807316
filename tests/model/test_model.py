from __future__ import annotations

import errno
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.io import write_jpeg, write_png

import afi_search
from afi_search.cost import measure
from afi_search.data.image_reader import read_image
from afi_search.files import Content
from afi_search.model.model import ModelError, load, model_card
from afi_search.space import Architecture
from tests.pictures import noise, trained
from tests.study.test_operations import WRONG, changed, paths


@pytest.mark.parametrize(
    ("text", "stem", "crop"),
    [
        ("resnet20(base-r4, off, B-r16-se)", 32, 32),
        ("mobilenetv2(B-r16-shared)", 32, 32),
        ("resnet50(base-r4)", 224, 64),
    ],
)
def test_what_is_saved_and_loaded_gives_the_same_logits(
    tmp_path: Path, text: str, stem: int, crop: int
) -> None:
    model = trained(text, stem=stem, crop=crop)
    model.save(tmp_path / "model")
    loaded = afi_search.load(tmp_path / "model")

    assert torch.equal(loaded(noise(2, crop)), model(noise(2, crop)))
    assert loaded.architecture == Architecture.parse(text)
    assert loaded.facts.model_copy(update={"costs": {}}) == model.facts
    assert not any(module.training for module in loaded.module.modules())


def test_the_folder_holds_nothing_that_is_executed(tmp_path: Path) -> None:
    paths = trained("resnet20(base-r4)").save(tmp_path)

    assert sorted(path.name for path in paths) == ["README.md", "model.json", "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in paths)


@pytest.mark.parametrize("name", ["README.md", "model.json", "model.safetensors", "model.onnx"])
def test_what_is_of_something_else_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"format": "of another program"}')

    with pytest.raises(ModelError, match=f"{name}: is of no model that afi_search wrote"):
        trained("resnet20").save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert "another" in (tmp_path / name).read_text()


def test_a_model_is_written_over_even_where_a_kill_left_only_its_facts(tmp_path: Path) -> None:
    trained("resnet20(base-r4)").save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "README.md").unlink()
    trained("resnet20").save(tmp_path)

    assert load(tmp_path).architecture == Architecture.parse("resnet20")


_UNTIL_CUT = """
import os, pickle, sys
from afi_search.files import write_together

folder, left = sys.argv[1], int(sys.argv[2])

def count(event, args):
    global left
    changes = event in ("os.rename", "os.remove") or event == "open" and args[1] == "wb"
    if changes and str(args[0]).startswith(folder):
        left -= 1
        if left < 0:
            os._exit(9)

sys.addaudithook(count)
write_together(**pickle.load(sys.stdin.buffer))
"""


@pytest.mark.parametrize("before", [None, "resnet20(base-r4)"])
def test_wherever_an_export_is_killed_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    done, told = set[int](), set[str]()

    def write(folder: Path, contents: dict[str, Content], outdated: Sequence[str]) -> None:
        given = pickle.dumps({"folder": folder, "contents": contents, "outdated": outdated})
        child = [sys.executable, "-c", _UNTIL_CUT, str(folder), folder.name]
        done.add(subprocess.run(child, input=given).returncode)

    for cut in itertools.count():
        folder = tmp_path / str(cut)
        if before is not None:
            trained(before).save(folder, {"model.onnx": b"before", "model.pt2": b"before"})

        with monkeypatch.context() as patched:
            patched.setattr("afi_search.model.model.write_together", write)
            trained("resnet20").save(folder, {"model.onnx": b"after"})
        try:
            there = load(folder).architecture.text
        except ModelError as error:
            there = "none"
            told.add(str(error).replace(str(folder), "M").partition(": its SHA")[0])
        if (folder / "model.onnx").exists():
            of = (folder / "model.onnx").read_bytes()
            assert there == {b"before": before, b"after": "resnet20"}[of]
        trained("resnet20").save(folder, {"model.onnx": b"after"})
        assert load(folder).architecture.text == "resnet20"
        assert (folder / "model.onnx").read_bytes() == b"after"
        assert not (folder / "model.pt2").exists()
        if done != {9}:
            break
    assert done == {0, 9}
    assert cut > 8
    again = "copy the folder or export the model again"
    assert told == (
        {
            "M: is no model's folder; there is no model.json in it",
            f"M: there is no model.safetensors in it; {again}",
        }
        if before is None
        else {"M/model.safetensors: is not the file that was exported"}
    )


@pytest.mark.parametrize("before", [None, "resnet20(base-r4)"])
def test_an_export_that_finds_the_disk_full_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is not None:
        trained(before).save(tmp_path, {"model.onnx": b"before"})
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for whole in range(4):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", Mock(side_effect=[*[None] * whole, full]))
            with pytest.raises(OSError, match="No space left on device") as caught:
                trained("resnet20").save(tmp_path, {"model.onnx": b"after"})
        names = "model.json", "model.safetensors", "README.md", "model.onnx"
        assert caught.value.filename == str(tmp_path / names[whole])
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == there


def test_costs_are_measured_when_it_is_saved(tmp_path: Path) -> None:
    trained("resnet20(base-r4)").save(tmp_path)
    cost = measure(Architecture.parse("resnet20(base-r4)"), num_classes=10, image_size=32)

    assert load(tmp_path).facts.costs == {
        "macs": cost.macs,
        "params": cost.params,
        "paper_gflops": cost.paper_gflops,
    }


def test_the_card_names_cost_accuracy_and_training(tmp_path: Path) -> None:
    trained("resnet20(base-r4)").save(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")

    assert card.startswith("# resnet20(base-r4)\n")
    for part in (
        "71.09 %",
        "33,737,312",
        "multiply-accumulates",
        "a study",
        "| recipe.epochs | 300 |",
    ):
        assert part in card, part


def test_what_a_class_is_called_is_text_on_the_card() -> None:
    facts = trained("resnet20").facts.model_copy(update={"classes": ("<b>x\x1b[2J", "a|b")})
    assert r"Classes: &lt;b>x\x1b[2J, a\|b." in model_card(facts.model_dump())


def test_predictions_are_the_likeliest_classes_in_order(tmp_path: Path) -> None:
    write_jpeg(torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8), str(tmp_path / "a.jpg"))
    model = trained("resnet20")
    guesses = model.predict(tmp_path / "a.jpg", top=3)
    everything = model.predict(tmp_path / "a.jpg", top=99)

    assert [guess.label for guess in guesses] == [guess.label for guess in everything[:3]]
    assert len(everything) == 10
    assert sum(guess.probability for guess in everything) == pytest.approx(1, abs=1e-5)
    logits = model(model.facts.preprocessing(read_image(tmp_path / "a.jpg")))
    assert guesses[0].label == f"class {logits.argmax().item()}"


def test_a_grey_png_is_read_as_rgb(tmp_path: Path) -> None:
    grey = torch.randint(0, 256, (1, 20, 30), dtype=torch.uint8)
    write_png(grey, str(tmp_path / "a.png"))

    assert torch.equal(read_image(tmp_path / "a.png"), grey.expand(3, -1, -1))


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere: is no model's folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"file: is no model's folder"):
        load(tmp_path / "file")
    trained("resnet20").save(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    diverged = {
        name: math.nan * of for name, of in load_file(tmp_path / "model.safetensors").items()
    }
    save_file(diverged, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors: holds NaN"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(ModelError, match=r"model\.safetensors: is cut short or damaged"):
        load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"there is no model\.safetensors"):
        load(tmp_path)
    facts = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**facts, "num_classes": "ten", "x": 1}))
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert "model.json: num_classes: " in str(caught.value)
    assert "model.json: x: " in str(caught.value)


def test_a_byte_changed_in_the_weights_is_told_with_the_file(tmp_path: Path) -> None:
    trained("resnet20").save(tmp_path)
    weights, facts = tmp_path / "model.safetensors", tmp_path / "model.json"
    whole = bytearray(weights.read_bytes())
    whole[-1000] ^= 1
    weights.write_bytes(whole)
    with pytest.raises(ModelError, match=r"model\.safetensors: is not the file that was exported"):
        load(tmp_path)
    before = {
        name: fact for name, fact in json.loads(facts.read_text()).items() if name != "sha256"
    }
    facts.write_text(json.dumps(before))  # as folders were written before there was a checksum
    assert load(tmp_path).facts.num_classes == 10


def test_whatever_model_json_says_it_is_used_or_refused(tmp_path: Path) -> None:
    trained("resnet20(base-r4)").save(tmp_path)
    write_png(torch.zeros(3, 32, 32, dtype=torch.uint8), str(tmp_path / "image.png"))
    told = (tmp_path / "model.json").read_bytes()
    cut = [told[: len(told) * part // 9] for part in range(9)]
    holes = [part + bytes(30) + told[len(part) + 30 :] for part in cut]
    others = [changed(told, at, value) for at in paths(json.loads(told)) for value in WRONG]
    refused = 0
    for text in (*cut, *holes, *others):
        (tmp_path / "model.json").write_bytes(text)
        try:
            model = load(tmp_path)
        except ModelError:
            refused += 1
        else:
            model.predict(tmp_path / "image.png")
            model.save(tmp_path / "again")

    assert refused > 100


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    trained("resnet20(B-r4)").save(tmp_path)
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace("resnet20(B-r4)", "resnet20"))

    with pytest.raises(ModelError, match=r"are not the weights of resnet20"):
        load(tmp_path)


def test_it_says_what_it_is() -> None:
    assert repr(trained("resnet20(base-r4)")) == (
        "<Model resnet20(base-r4): 10 classes, images of 32 x 32, on cpu, test accuracy 71.09 %>"
    )


@pytest.mark.parametrize(
    ("text", "stem", "expected"),
    [
        ("resnet20(base-r4, off, B-r16-se)", 32, [(16, 1), (32, 2), (64, 4)]),
        ("resnet50(base-r4)", 224, [(256, 4), (512, 8), (1024, 16), (2048, 32)]),
        ("mobilenetv2(B-r16)", 224, [(24, 4), (32, 8), (64, 16), (96, 16), (160, 32)]),
        ("shufflenetv2(off)", 32, [(116, 2), (232, 4), (464, 8)]),
    ],
)
def test_its_features_are_the_stages_outputs(
    text: str, stem: int, expected: list[tuple[int, int]]
) -> None:
    model = trained(text, stem=stem, crop=64)
    info = model.feature_info()

    assert [(one.channels, one.stride) for one in info] == expected
    images = noise(2, 96)
    maps = model.features(images)
    assert [tuple(one.shape) for one in maps] == [
        (2, channels, 96 // stride, 96 // stride) for channels, stride in expected
    ]
    stages = [model.module.get_submodule(one.name) for one in info]
    for stage, earlier, later in zip(stages[1:], maps, maps[1:], strict=False):
        assert torch.equal(stage(earlier), later)
    maps[-1].sum().backward()
    assert all(p.grad is not None for p in stages[0].parameters() if p.ndim == 4)
    assert len(model.folded().features(images)) == len(expected)


def test_a_model_moves_with_its_preprocessing(tmp_path: Path) -> None:
    write_jpeg(torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8), str(tmp_path / "a.jpg"))
    model = trained("resnet20")
    assert model.to("cpu") is model
    assert model.preprocess(read_image(tmp_path / "a.jpg")).shape == (1, 3, 32, 32)
    model.to("meta")
    assert model.device == torch.device("meta")
    assert model(model.preprocess(read_image(tmp_path / "a.jpg"))).device == model.device
