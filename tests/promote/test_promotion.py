from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
import torchvision
from torchvision.io import ImageReadMode, decode_image

import afi_search
from afi_search.data.image_folder import check, list_images
from afi_search.data.image_loader import TorchvisionLoader, share_out
from afi_search.engine.capacity import Capacity
from afi_search.engine.promotion_worker import (
    CAPTURED,
    COMPILED,
    PromotionConfig,
    make_model,
    make_trainer,
    probe,
    resolve_way,
)
from afi_search.engine.torch_train import PromotionError
from afi_search.errors import UserError
from afi_search.model.from_checkpoint import read_checkpoint
from afi_search.model.model import class_name
from afi_search.nn.afi import BlockAFI
from afi_search.nn.pretrained import digest
from afi_search.promote.promotion import (
    for_imagenet,
    promote_study,
    resumed,
    winners,
)
from afi_search.search.listener import Listener
from afi_search.space import Architecture
from afi_search.space.recipe import ImageNetRecipe
from afi_search.space.schema import Promote
from afi_search.study import Ledger
from afi_search.study.folder import CONFIRM, StudyFile
from afi_search.train import CheckpointMismatch, Trainer, load, precision, save
from tests.promote.test_confirm import confirmation, play, searched_study
from tests.search.studies import open_study, space_file

TINY = """
epochs: {epochs}
batch_size: {batch}
lr: {rate}
warmup: 0.1
schedule: cosine
train_crop: 32
eval_resize: 36
eval_crop: 32
precision: fp32
ema_decay: {average}
"""
MAPPED = Promote(backbone="resnet50", stages=(1, 2, 3, 3))


def recipe_file(
    folder: Path, epochs: int, batch: int = 8, rate: float = 0.1, average: str = "null"
) -> str:
    path = folder / "tiny.yaml"
    lr = rate * batch / 256
    path.write_text(TINY.format(epochs=epochs, batch=batch, rate=lr, average=average))
    return str(path)


def test_stages_go_where_the_space_file_says() -> None:
    searched = Architecture.parse("resnet20(base-r4, off, B-r16-se)")

    assert str(for_imagenet(searched, MAPPED)) == "resnet50(base-r4, off, B-r16-se, B-r16-se)"
    same = Architecture.parse("resnet50(base-r4)")
    assert for_imagenet(same, Promote()) == same
    with pytest.raises(PromotionError, match="resnet20 is not made for ImageNet"):
        for_imagenet(searched, Promote())


def test_without_a_confirmation_the_fronts_most_accurate_wins(tmp_path: Path) -> None:
    searched_study(tmp_path)
    front = afi_search.front(Ledger.open(tmp_path).records())
    best = Architecture.parse(str(front.set_index("architecture")["accuracy"].idxmax()))

    assert winners(tmp_path, MAPPED) == [for_imagenet(best, MAPPED)]


def test_what_a_confirmation_refutes_does_not_win_nor_does_the_test_set_choose(
    tmp_path: Path,
) -> None:
    """By formula, the validation accuracies are 0.74, 0.47 and 0.84 of the three below."""
    searched_study(tmp_path)
    texts = ["resnet20(base-r4)", "resnet20", "resnet20(B-r4)"]
    ledger, conductor = confirmation(tmp_path / CONFIRM, 2, texts)
    play(conductor)
    validation = dict(ledger.records().groupby("architecture")["accuracy"].mean())
    ranking = sorted(texts, key=lambda text: -validation[text])
    reached = {text: 0.5 + 0.001 * place for place, text in enumerate(ranking)}
    for trial in ledger.trials():
        noise = 0.01 * trial.user_attrs["seed"]
        ledger.note_tested(trial.number, reached[trial.user_attrs["architecture"]] + noise)
    assert winners(tmp_path, MAPPED) == [for_imagenet(Architecture.parse(ranking[0]), MAPPED)]

    refuted = "resnet20(B-r4)"
    for trial in ledger.trials():
        low = trial.user_attrs["architecture"] == refuted
        noise = 0.0001 * trial.user_attrs["seed"]
        ledger.note_tested(trial.number, (0.1 if low else 0.5) + noise)
    three = MAPPED.model_copy(update={"top": 3})
    left = [text for text in ranking if text != refuted]
    assert winners(tmp_path, three) == [
        for_imagenet(Architecture.parse(text), MAPPED) for text in left
    ]


class Heard(Listener):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def said(self, words: str) -> None:
        self.sentences.append(words)


def test_a_choice_by_one_seed_says_that_its_seeds_do_not_tell(tmp_path: Path) -> None:
    searched_study(tmp_path)
    ledger, conductor = confirmation(tmp_path / CONFIRM, 2, ["resnet20(base-r4)", "resnet20"])
    play(conductor)
    for trial in ledger.trials():
        if trial.user_attrs["seed"] == ledger.trials()[0].user_attrs["seed"]:
            ledger.note_tested(trial.number, 0.5)
    heard = Heard()
    winners(tmp_path, MAPPED, heard)
    assert "its seeds do not tell how sure that is" in heard.sentences[0]


def test_a_study_without_a_front_has_none_to_promote_and_says_no_more(tmp_path: Path) -> None:
    open_study(tmp_path, StudyFile("study", "", "", space_file(), {}))
    heard = Heard()
    with pytest.raises(PromotionError, match="has no front to promote from"):
        winners(tmp_path, MAPPED, heard)
    assert heard.sentences == []


@pytest.mark.parametrize("name", ["..", "", "a/b", "/etc/x", "a\nb", "x::y"])
def test_a_promotion_has_the_name_of_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(PromotionError, match=r"--name: .* is no name"):
        promote_study(tmp_path, data=str(tmp_path), name=name)
    assert list(tmp_path.iterdir()) == []


def test_imagenet_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(PromotionError, match=r"afi-search promote .* --data"):
        promote_study(tmp_path, ["resnet50"])


def config_for(pictures: Path, **changes: Any) -> PromotionConfig:
    images = list_images(pictures)
    recipe = ImageNetRecipe(batch_size=8, train_crop=32, eval_resize=32, eval_crop=32)
    config = PromotionConfig(
        Architecture.parse("shufflenetv2(base-r4)"),
        recipe,
        pictures,
        (),
        images.classes,
        len(images.train),
        len(images.validation),
        str(pictures.parent / "checkpoints"),
        None,
        Capacity(2, threads=1, gpus=0.0),
    )
    return replace(config, **changes)


def test_a_probe_measures_speeds_and_memory(pictures: Path) -> None:
    torch.backends.cudnn.benchmark = False
    config = config_for(pictures)
    measured = probe(config)

    assert torch.backends.cudnn.benchmark
    assert measured.model_speed > 0
    assert measured.loader_speed > 0
    assert measured.memory > 10**7
    assert measured.weights == sum(t.numel() for t in make_model(config).state_dict().values())


@pytest.mark.parametrize(
    ("seconds", "compiled", "way"),
    [
        (60.0, 999.0, CAPTURED),  # compiling would take longer
        (1e5, 150.0, COMPILED),
        (1e5, 101.0, CAPTURED),
        (1e5, None, CAPTURED),
    ],
)
def test_steps_are_compiled_where_that_was_measured_to_be_faster_and_stay_so(
    pictures: Path, seconds: float, compiled: float | None, way: str
) -> None:
    def speed(of: str) -> float:
        if of == CAPTURED:
            return 100.0
        if compiled is None:
            raise RuntimeError("there is no compiler")
        return compiled

    config = config_for(pictures)
    assert resolve_way(config, seconds, speed) == way
    assert resolve_way(config, 1e9, lambda way: 1.0 if way == CAPTURED else 1e9) == way


def test_the_number_of_workers_is_no_part_of_what_a_checkpoint_must_agree_on(
    pictures: Path,
) -> None:
    config = config_for(pictures)
    more = replace(config, capacity=Capacity(7, threads=7, gpus=1.0))
    assert more.identity == config.identity
    assert replace(config, train_images=5).identity != config.identity


def test_an_image_that_broke_since_a_training_began_does_not_keep_it_from_going_on(
    pictures: Path,
) -> None:
    def config_of_now() -> PromotionConfig:
        images, broken = check(pictures, 3, skip=True)
        number = len(images.train)
        return config_for(pictures, skipped=tuple(broken), train_images=number, skip_broken=True)

    (pictures / "train/n01/0.JPEG").write_bytes(b"")
    begun = config_of_now()
    assert resumed(begun) == (begun, 0)
    sizes = list_images(pictures, begun.skipped).sizes
    kept = {"skipped": list(begun.skipped), "identity": begun.identity, "sizes": sizes}
    save({"epoch": 3, **kept}, begun.checkpoints)
    for broken in ("train/n02/1.JPEG", "val/n03/0.JPEG"):
        (pictures / broken).write_bytes(b"")
    later = config_of_now()
    assert len(later.skipped) == 3
    config, epoch = resumed(later)
    assert (config.skipped, config.train_images, epoch) == (begun.skipped, begun.train_images, 3)
    (pictures / "train/n01/0.JPEG").unlink()
    config, epoch = resumed(config_of_now())
    assert (config.skipped, config.train_images, epoch) == (begun.skipped, begun.train_images, 3)
    (pictures / "train/n02/1.JPEG").unlink()
    count, heard = sizes["n02"], Heard()
    told = f"train/n02: {count} images there, {count - 1} here"
    config, epoch = resumed(config_of_now(), heard)
    assert (config.skipped, config.train_images, epoch) == (begun.skipped, begun.train_images, 3)
    assert heard.sentences == [f"Images are gone: {told}."]
    with pytest.raises(CheckpointMismatch, match=rf"train_images: .*; {told}\. Take that back"):
        resumed(replace(config_of_now(), skip_broken=False))
    now = {"sizes": list_images(pictures, begun.skipped).sizes}
    save({"epoch": 4, **kept, **now}, begun.checkpoints)
    assert resumed(config_of_now(), heard)[1] == 4
    assert len(heard.sentences) == 1
    shutil.copyfile(pictures / "train/n02/0.JPEG", pictures / "train/n02/new.JPEG")
    shutil.copyfile(pictures / "train/n02/0.JPEG", pictures / "train/n02/newer.JPEG")
    with pytest.raises(CheckpointMismatch, match="Take that back"):
        resumed(config_of_now())


def trainer_for(config: PromotionConfig) -> Trainer:
    images, sharding = list_images(config.folder), share_out(8, 8, 0, 1)
    loader = TorchvisionLoader(images, config.recipe, sharding, 0)
    return make_trainer(config, images, loader, sharding, torch.device("cpu"))


@pytest.mark.parametrize("faster", ["fp32", "bf16"])
def test_a_promotion_is_trained_in_the_precision_that_was_first_measured_for_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: str
) -> None:
    measured = [faster]
    networks = []

    def measure(network: torch.nn.Module, *given: object) -> str:
        networks.append(network)
        return measured.pop(0)

    monkeypatch.setattr(precision, "computes_bf16", lambda device: True)
    monkeypatch.setattr(precision, "user_cache_path", lambda name: tmp_path / "cache")
    monkeypatch.setattr(precision, "faster", measure)
    config = config_for(pictures)
    probe(config)
    shutil.rmtree(tmp_path / "cache")  # as on another machine

    assert trainer_for(config).recipe.precision == faster
    assert load(config.checkpoints) is None
    assert not [part for part in networks[0].modules() if isinstance(part, BlockAFI)]


def test_pretrained_weights_are_where_the_training_starts(pictures: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    plain = torchvision.models.shufflenet_v2_x1_0(weights=None)
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    config = config_for(pictures, pretrained=str(tmp_path / "weights.pth"))
    trainer = trainer_for(config)

    theirs = [tensor for name, tensor in plain.state_dict().items() if name == "conv1.0.weight"]
    assert any(
        tensor.shape == theirs[0].shape and torch.equal(tensor, theirs[0])
        for tensor in trainer.model.state_dict().values()
    )


def test_weights_that_are_none_are_told_before_anything_starts(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Begins(Exception):
        pass

    def begins(*_: object) -> None:
        raise Begins

    monkeypatch.setattr("afi_search.promote.promotion.RaySession", begins)
    (tmp_path / "w.pth").write_bytes(b"no weights")

    def promote(weights: str) -> None:
        named, given = ["shufflenetv2(base-r4)"], str(tmp_path / weights)
        promote_study(tmp_path, named, data=pictures, classes=3, pretrained=given, name="p")

    refused = {
        "w.pth": "w.pth: is no file of weights",
        "x.pth": "there is no such",
        "/dev/zero": "it is no file",
    }
    for name, why in refused.items():
        with pytest.raises(UserError, match=why):
            promote(name)
    save({"epoch": 1}, str(tmp_path / "promote" / "p" / "checkpoints"))
    with pytest.raises(Begins):  # it goes on from its checkpoint, without them
        promote("x.pth")


def test_a_promotion_does_not_go_on_with_other_weights_than_it_began_with(
    pictures: Path, tmp_path: Path
) -> None:
    config = config_for(pictures, pretrained="/a.pth", checkpoints=str(tmp_path))
    state = {"epoch": 1, "identity": config.identity, "origin": config.origin}
    save(state, config.checkpoints)
    assert resumed(config)[1] == 1
    for other in ("/b.pth", None):
        with pytest.raises(CheckpointMismatch, match=r"pretrained: '/a.pth' there, .*--name"):
            resumed(replace(config, pretrained=other))


def test_other_weights_in_the_same_file_are_told_and_none_any_more_are_not(
    pictures: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "a.pth"
    weights.write_bytes(b"some")
    where = {"pretrained": str(weights), "checkpoints": str(tmp_path / "checkpoints")}
    config = config_for(pictures, **where, pretrained_sha256=digest(weights))
    save({"epoch": 1, "identity": config.identity, "origin": config.origin}, config.checkpoints)
    assert resumed(config) == (config, 1)
    weights.write_bytes(b"others")
    with pytest.raises(CheckpointMismatch, match=r"pretrained_sha256: '[0-9a-f]{64}' there, "):
        resumed(replace(config, pretrained_sha256=digest(weights)))
    weights.unlink()
    assert resumed(replace(config, pretrained_sha256=digest(weights))) == (config, 1)


@pytest.mark.slow
def test_pictures_become_a_model_that_ships(pictures: Path, tmp_path: Path) -> None:
    named = [Architecture.parse("shufflenetv2(base-r4)")]
    recipe = recipe_file(tmp_path, epochs=1)
    promote_study(tmp_path, named, data=pictures, classes=3, recipe=recipe, workers=1, name="p")
    own = tmp_path / "promote" / "p"
    model = afi_search.load(own / "model")
    state = load(str(own / "checkpoints"))

    assert model.architecture == named[0]
    assert model.facts.classes == ("n01", "n02", "n03")
    assert state is not None
    assert state["epoch"] == 1
    assert len(pd.read_csv(own / "history.csv")) == 1
    (picture,) = (pictures / "val" / "n02").glob("0.JPEG")
    guesses = model.predict(picture, top=3)
    assert sum(guess.probability for guess in guesses) == pytest.approx(1, abs=1e-5)


COMMAND = (
    "from afi_search.cli.common import Computes; from afi_search.cli.promote import promote; "
    "import typer; app = typer.Typer(); app.command(cls=Computes)(promote); app()"
)


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_is_killed_is_started_again(pictures: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, epochs=20)
    arguments = [str(tmp_path), "--data", str(pictures), "--classes", "3", "--recipe", recipe]
    arguments += ["--architecture", "shufflenetv2", "--workers", "1", "--name", "p"]
    process = start(arguments)
    own = tmp_path / "promote" / "p"
    wait_for(own / "checkpoints" / "epoch-000002.pt", process)
    worker = next(
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RayTrainWorker" in " ".join(child.cmdline())
    )
    worker.kill()
    output, _ = process.communicate(timeout=500)

    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert list(pd.read_csv(own / "history.csv")["epoch"]) == list(range(1, 21))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ("epoch-000003.pt", "No space left on device"),
        ("history.csv", "Is a directory"),
        ("checkpoints", "No such file or directory"),
    ],
)
def test_what_no_second_try_mends_ends_a_promotion_at_once(
    pictures: Path, tmp_path: Path, refused: str, words: str
) -> None:
    own, disk = tmp_path / "promote" / "p", tmp_path / "disk"
    arguments = [str(tmp_path), "--data", str(pictures), "--classes", "3", "--workers", "1"]
    arguments += ["--architecture", "shufflenetv2", "--name", "p"]
    if refused == "history.csv":
        (own / refused).mkdir(parents=True)
    elif refused != "checkpoints":
        disk.mkdir()
        small = ["mount", "-t", "tmpfs", "-o", "size=25m", "tmpfs", str(disk)]
        if os.getuid() or subprocess.run(small).returncode:
            pytest.skip("needs root and mount, to make a small disk")
        arguments += ["--checkpoints", str(disk)]
    try:
        process = start([*arguments, "--recipe", recipe_file(tmp_path, epochs=6)])
        if refused == "checkpoints":
            wait_for(own / "history.csv", process)
            own.rename(tmp_path / "moved")
        output, _ = process.communicate(timeout=500)
    finally:
        if disk.exists():
            subprocess.run(["umount", "-l", disk], check=True)

    assert process.returncode == 2, output
    last = output.splitlines()[-1]
    assert last.startswith("error: shufflenetv2: ")
    assert f"{refused}: {words}" in last
    assert own.exists() == (refused != "checkpoints")
    if own.exists():
        assert output.count("epoch 2/6") == (refused != "history.csv")
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_ends_cleanly(pictures: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, epochs=100_000)
    arguments = [str(tmp_path), "--data", str(pictures), "--classes", "3", "--recipe", recipe]
    arguments += ["--architecture", "shufflenetv2", "--workers", "1", "--name", "p"]
    process = start(arguments)
    wait_for(tmp_path / "promote" / "p" / "history.csv", process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 130, output
    assert "the same command resumes it" in output
    assert "Traceback" not in output
    assert load(str(tmp_path / "promote" / "p" / "checkpoints")) is not None


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_images_on_two_workers_then_one_then_two_killed_in_between(
    imagenette: Path, tmp_path: Path
) -> None:
    """AFI-ResNet-50: the loss falls, kill -9 costs no finished epoch, workers may go and come."""
    recipe = recipe_file(tmp_path, epochs=5, batch=40, rate=0.02, average="0.9")
    arguments = [str(tmp_path), "--data", str(imagenette), "--classes", "10", "--recipe", recipe]
    arguments += ["--architecture", "resnet50(base-r4)", "--name", "p", "--workers"]
    own = tmp_path / "promote" / "p"

    for workers, until in (("2", 1), ("1", 3)):
        killed = start([*arguments, workers])
        wait_for(own / "checkpoints" / f"epoch-{until:06d}.pt", killed)
        killed.send_signal(signal.SIGKILL)
        killed.wait()

    last = start([*arguments, "2"])
    output, _ = last.communicate(timeout=900)
    assert last.returncode == 0, output
    assert "Going on after epoch 3 of 5" in output or "Going on after epoch 4 of 5" in output
    history = pd.read_csv(own / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3, 4, 5]
    workers_by_epoch = list(history["workers"])
    assert workers_by_epoch in ([2, 1, 1, 2, 2], [2, 2, 1, 2, 2], [2, 1, 1, 1, 2], [2, 2, 1, 1, 2])
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]

    model = afi_search.load(own / "model")
    assert model.facts.training["workers by epoch"] == workers_by_epoch
    from_checkpoint = read_checkpoint(str(own))
    picture = next((imagenette / "val").glob("*/*.JPEG"))
    pixels = model.facts.preprocessing(decode_image(str(picture), mode=ImageReadMode.RGB))
    assert torch.equal(model(pixels), from_checkpoint(pixels))
    assert model.predict(picture)[0].label in map(class_name, model.facts.classes)
