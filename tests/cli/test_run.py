"""The main job as a person runs it: real processes, real Ray, real kills."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
import torch

from afi_search.cli.run import read_settings
from afi_search.cli.screen import Screen
from afi_search.cost import measure
from afi_search.data import DataUnavailable
from afi_search.engine.ray_guard import processes_of
from afi_search.model.from_checkpoint import trial_model
from afi_search.search import prepare
from afi_search.search.prepare import choose_preset, settle_data
from afi_search.space import Architecture, Space, SpaceFileError
from afi_search.space.loading import SpaceDocument
from afi_search.study import Ledger
from afi_search.study.ledger import DEATHS
from afi_search.study.study import Study
from afi_search.train import load
from tests.driver import SPACE, Driver
from tests.typed import there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return tmp_path


def test_killed_driver_then_the_same_command_then_the_same_again(folder: Path) -> None:
    study = folder / "studies" / "resnet20-digits"
    first = Driver(folder, "tiny.yaml")
    first.wait_for(r"trial 1 .*epoch 2/4")
    of_ray, folder_of_ray = list(processes_of(first.ray_folder)), first.ray_folder
    assert any("Agent" in " ".join(process.cmdline()) for process in of_ray)
    first.process.send_signal(signal.SIGKILL)
    first.end()
    assert psutil.wait_procs(of_ray, timeout=60)[1] == [], "of its Ray, something is left"
    while folder_of_ray.exists():
        time.sleep(0.05)
    known = {
        number: there(load(str(study / "checkpoints" / f"{number:05d}")))["history"]
        for number in (0, 1)
    }
    assert set(Ledger.open(study).records()["state"]) & {"running"}

    second = Driver(folder, "tiny.yaml")
    assert second.end() == 0, second.output
    records = Ledger.open(study).records()
    assert len(records) == 5
    assert set(records["state"]) <= {"complete", "pruned"}
    assert records["architecture"].is_unique
    assert records.loc[0, "full"]
    for number, history in known.items():
        final = there(load(str(study / "checkpoints" / f"{number:05d}")))["history"]
        assert final[: len(history)] == history, "a checkpointed epoch was trained again"
    written = ("front.csv", "front.json", "front.html", "front.png", "trials.csv", "report.html")
    for name in (*written, "study.yaml"):
        assert (study / name).stat().st_size > 0
    assert "Ray dashboard: http://" in second.output

    third = Driver(folder, "tiny.yaml")
    assert third.end() == 0, third.output
    assert "The study is complete" in third.output
    assert "Ray dashboard" not in third.output
    assert Ledger.open(study).records().equals(records)


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(folder: Path) -> None:
    study = folder / "studies" / "mine"
    command = ("tiny.yaml", "--name", "mine")
    first = Driver(folder, *command)
    first.wait_for(r"trial 0 .*epoch 2/4")
    first.process.send_signal(signal.SIGINT)

    assert first.end() == 130, first.output
    assert "Stopping:" in first.output
    assert "the same command resumes it" in first.output
    assert "Traceback" not in first.output
    states = list(Ledger.open(study).records()["state"])
    assert "running" not in states
    assert "waiting" in states

    second = Driver(folder, *command)
    assert second.end() == 0, second.output
    records = Ledger.open(study).records()
    assert len(records) == 5
    assert set(records["state"]) <= {"complete", "pruned"}


@pytest.mark.slow
def test_a_finished_study_goes_on_where_more_trials_are_asked_for(folder: Path) -> None:
    study = folder / "studies" / "resnet20-digits"
    found = []
    for trials in ("2", "3"):
        driver = Driver(folder, "tiny.yaml", "--trials", trials)
        assert driver.end() == 0, driver.output
        found.append(Ledger.open(study).records())
    before, after = found
    assert (len(before), len(after)) == (2, 3)
    assert after[:2].equals(before)
    assert after["architecture"].is_unique


@pytest.mark.slow
def test_a_killed_worker_costs_no_finished_epoch(folder: Path) -> None:
    driver = Driver(folder, "tiny.yaml")
    driver.wait_for(r"trial 0 .*epoch 2/4")
    workers = driver.descendants("ResourceTrainable")
    assert workers
    for worker in workers:
        worker.kill()

    assert driver.end() == 0, driver.output
    ledger = Ledger.open(folder / "studies" / "resnet20-digits")
    assert any("worker" in death for death in deaths(ledger))
    records = ledger.records()
    assert len(records) == 5
    assert set(records["state"]) <= {"complete", "pruned"}


def deaths(ledger: Ledger) -> list[str]:
    """Return why each worker died, as the ledger has it."""
    return [death for trial in ledger.trials() for death in trial.user_attrs.get(DEATHS, [])]


FAULTY = """
import os
from pathlib import Path
import torch
from afi_search.train import Trainer
from tests.typed import there
HERE, train = Path(__file__).parent, Trainer.run_epoch
def run_epoch(trainer, heard=None):
    (HERE / f"worker-{os.getpid()}").touch()
    if trainer.epoch == 1 and not (HERE / "faulty").exists():
        (HERE / "faulty").write_text(str(os.getpid()))
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\\nCompile with ..")
    return train(trainer, heard)
Trainer.run_epoch = run_epoch
"""
"""A module of a study's own, by which one epoch has a fault of the GPU."""


@pytest.mark.slow
def test_a_fault_of_a_gpu_costs_its_worker_and_no_trial(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(f"{SPACE.rstrip()}\nimports: [gpu_with_a_fault]\n")
    (folder / "gpu_with_a_fault.py").write_text(FAULTY)
    driver = Driver(folder, "tiny.yaml")

    assert driver.end() == 0, driver.output
    ledger = Ledger.open(folder / "studies" / "resnet20-digits")
    [death] = deaths(ledger)
    assert death.startswith("1: ") and "CUDA error: unspecified launch failure" in death
    records = ledger.records()
    assert len(records) == 5
    assert set(records["state"]) <= {"complete", "pruned"}
    workers = {path.name.partition("-")[2] for path in folder.glob("worker-*")}
    assert len(workers) >= 2 and (folder / "faulty").read_text() in workers


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_at_16_pixels_has_16_pixels_everywhere(folder: Path) -> None:
    shorter = SPACE.replace("epochs: 4", "epochs: 2").replace("trials: 5", "trials: 1")
    text = shorter.replace("{name: digits,", "{name: digits, image_size: 16,")
    recipe = "recipe: {epochs: 1, batch_size: 32, pad: 2}, train_subset: 64, validation_subset: 40"
    confirm = f"confirm: {{top: 1, seeds: 2, baselines: false, {recipe}}}\n"
    (folder / "tiny.yaml").write_text(text + confirm)
    study = folder / "studies" / "resnet20-digits"
    driver = Driver(folder, "tiny.yaml")

    assert driver.end(500) == 0, driver.output
    ledger = Ledger.open(study)
    records = ledger.records()
    for text, macs in zip(records["architecture"], records["macs"], strict=True):
        assert macs == measure(Architecture.parse(text), num_classes=10, image_size=16).macs
    assert Study.open(study).info.image_size == 16
    for place, number in ((study, 0), (study / "confirm", 1)):
        facts = trial_model(Study.open(place), number).facts
        assert facts.stem == facts.preprocessing.resize == facts.preprocessing.crop == 16
    assert "test" in driver.output

    (folder / "tiny.yaml").write_text(shorter + confirm)
    changed = Driver(folder, "tiny.yaml")
    assert changed.end() == 2
    assert "data.image_size: 16 in the study, None now" in changed.output


def test_mistakes_end_with_code_2_before_anything_starts(folder: Path) -> None:
    (folder / "wrong.yaml").write_text(SPACE.replace("resnet20", "resnet21").replace("lr:", "lrr:"))
    driver = Driver(folder, "wrong.yaml")

    assert driver.end() == 2
    assert "wrong.yaml:2: backbone: unknown backbone 'resnet21'" in driver.output
    assert "wrong.yaml:6: recipe.lrr: unknown key. Did you mean 'lr'?" in driver.output
    assert "Traceback" not in driver.output
    assert not (folder / "studies").exists()


def test_auto_takes_short_on_a_gpu_and_smoke_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = SpaceDocument.read("spaces/resnet.yaml")
    screen = Screen()
    for available, expected in ((True, "short"), (False, "smoke")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert choose_preset(document, "auto", screen) == expected
        assert f"preset {expected}" in capsys.readouterr().out
    assert choose_preset(document, "none", screen) is None
    assert choose_preset(document, "paper", screen) == "paper"


def test_data_that_cannot_be_had_is_replaced_only_where_the_file_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere(name: str, folder: object) -> Path:
        raise DataUnavailable(f"{name} is nowhere")

    monkeypatch.setattr(prepare, "locate", nowhere)
    file = Space.load("spaces/resnet.yaml", "smoke").file
    screen = Screen()

    settled = settle_data(file, None, screen)
    assert (settled.data.name, settled.data.fallback) == ("digits", None)
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "cifar100 is nowhere" in said
    assert "The results are not about cifar100" in said
    strict = file.model_copy(update={"data": file.data.model_copy(update={"fallback": None})})
    with pytest.raises(DataUnavailable):
        settle_data(strict, None, screen)


@pytest.mark.parametrize("text", ["recipe.epochs", "=3", "recipe..epochs=3", "recipe.epochs=[3"])
def test_what_is_no_setting_is_told(text: str) -> None:
    with pytest.raises(SpaceFileError, match=r"^--set "):
        read_settings([text])
