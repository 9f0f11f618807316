from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from afi_search.data import Split
from afi_search.train import (
    CheckpointMismatch,
    DivergedError,
    Trainer,
    load,
    save,
    seed_everything,
    trial_trainer,
)
from afi_search.train import trainer as trainer_module
from afi_search.train.optimiser import learning_rate
from tests.train.networks import RECIPE, digits_split, network, trainer
from tests.typed import part, there

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> Split:
    return digits_split()


def finish(training: Trainer) -> Trainer:
    while not training.done:
        training.run_epoch()
    return training


def outcome(training: Trainer) -> list[tuple[int, float, float]]:
    return [(result.epoch, result.accuracy, result.loss) for result in training.history]


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_it_learns(data):
    seed_everything(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    recipe = RECIPE.model_copy(update={"epochs": 12, "lr": 0.01, "flip": False, "pad": 0})

    history = finish(trial_trainer(model, recipe, data, seed=0, device=CPU)).history

    assert history[-1].accuracy > 0.8
    assert history[-1].loss < history[0].loss / 1.5


def test_results_are_numbered_and_measured(data):
    training = trainer(data)
    assert (training.epoch, training.done) == (0, False)

    first = training.run_epoch()

    assert first.epoch == training.epoch == 1
    assert 0 <= first.accuracy <= 1
    assert first.seconds > 160 / first.images_per_second > 0
    assert finish(training).history[0] is first
    assert [result.epoch for result in training.history] == [1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError, match="all 5 epochs"):
        training.run_epoch()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stop", [0, 1, 3, 4])
def test_stopped_after_any_epoch_and_continued_it_ends_in_the_same_bits(
    data, tmp_path, stop, precision
):
    recipe = RECIPE.model_copy(update={"precision": precision})
    whole = finish(trainer(data, recipe))
    stopped = trainer(data, recipe)
    for _ in range(stop):
        stopped.run_epoch()
    save(stopped.state_dict(), str(tmp_path))

    seed_everything(99)
    continued = trial_trainer(network(), recipe, data, seed=3, device=CPU)
    continued.load_state_dict(there(load(str(tmp_path))))
    assert continued.epoch == stop
    finish(continued)

    assert_same_weights(whole.model, continued.model)
    assert outcome(whole) == outcome(continued)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(data):
    first, second = finish(trainer(data)), finish(trainer(data))
    other = finish(trainer(data, seed=4))

    assert_same_weights(first.model, second.model)
    assert outcome(first) != outcome(other)


def test_one_epoch_is_the_textbooks_loop(data):
    """The same views through plain SGD and autograd, in float64, with the schedule written out."""
    recipe = RECIPE.model_copy(update={"epochs": 1, "schedule": "step", "drops_at": (0.5,)})
    training = trainer(data, recipe)
    part(training.model, "3", nn.Dropout).p = 0.0
    reference = network().double()
    part(reference, "3", nn.Dropout).p = 0.0
    reference.load_state_dict(training.model.state_dict())
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(150, generator=generator)
    corners = torch.randint(0, 9, (2, 160), generator=generator)
    coins = torch.randint(0, 2, (160,), generator=generator)
    norms = {"1.weight", "1.bias", "4.bias", "5.weight", "5.bias", "9.bias"}
    velocity: dict[str, torch.Tensor | float] = {
        name: 0.0 for name, _ in reference.named_parameters()
    }
    losses = []

    training.run_epoch()
    for step in range(5):
        chosen = range(step * 32, step * 32 + 32)
        batch = []
        for sample in chosen:
            image = data.train.images[order[sample % 150]].double() / 255
            canvas = torch.zeros(40, 40, 3).double()
            canvas[4:36, 4:36] = image
            top, left = corners[:, sample].tolist()
            view = canvas[top : top + 32, left : left + 32]
            batch.append(view.flip(1) if coins[sample] else view)
        x = (torch.stack(batch) - data.spec.mean[0]) / data.spec.std[0]
        labels = data.train.labels[order[[sample % 150 for sample in chosen]]]
        loss = nn.functional.cross_entropy(
            reference(x.permute(0, 3, 1, 2)), labels, label_smoothing=0.1
        )
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        rate = [0.05, 0.1, 0.01, 0.01, 0.01][step]
        with torch.no_grad():
            for (name, weight), gradient in zip(
                reference.named_parameters(), gradients, strict=True
            ):
                decayed = gradient + (0.0 if name in norms else 1e-4) * weight
                velocity[name] = 0.9 * velocity[name] + decayed
                weight.sub_(rate * (decayed + 0.9 * velocity[name]))

    assert abs(training.history[0].loss - sum(losses) / 5) < 1e-5
    for name, value in training.model.state_dict().items():
        torch.testing.assert_close(
            value.double(), reference.state_dict()[name].double(), rtol=1e-3, atol=1e-5
        )


def test_every_image_is_seen_in_every_epoch_in_full_batches(data, monkeypatch):
    seen = []
    original = Trainer.step

    def spy(self, number, rounds):
        seen.append(rounds[0][0])
        original(self, number, rounds)

    monkeypatch.setattr(Trainer, "step", spy)
    training = trainer(data)
    training.run_epoch()
    training.run_epoch()

    assert training.steps_per_epoch == 5
    assert [len(batch) for batch in seen] == [32] * 10
    for epoch in (seen[:5], seen[5:]):
        assert set(torch.cat(epoch).tolist()) == set(range(150))
    assert not torch.equal(seen[0], seen[5])


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("safe", [True, False])
def test_images_are_mirrored_where_recipe_and_data_allow_it(data, monkeypatch, flip, safe):
    mirrored = []
    monkeypatch.setattr(Trainer, "step", lambda self, _, rounds: mirrored.append(rounds[0][3]))
    recipe = RECIPE.model_copy(update={"flip": flip})

    spec = replace(data.spec, mirror_safe=safe)
    trainer(replace(data, spec=spec), recipe).run_epoch()

    assert torch.cat(mirrored).any().item() is (flip and safe)


def test_a_batch_larger_than_the_set_is_the_set(data):
    training = trainer(data, RECIPE.model_copy(update={"batch_size": 4096}))

    training.run_epoch()

    assert training.steps_per_epoch == 1


def test_the_rate_of_each_step_is_the_schedules_also_after_continuing(data, tmp_path, monkeypatch):
    used = []
    original = Trainer.step

    def spy(self, number, rounds):
        original(self, number, rounds)
        used.append([group["lr"].item() for group in self._optimiser.param_groups])

    monkeypatch.setattr(Trainer, "step", spy)
    training = trainer(data)
    training.run_epoch()
    training.run_epoch()
    continued = trainer(data)
    continued.load_state_dict(training.state_dict())
    finish(continued)

    expected = [learning_rate(RECIPE, step, 25) for step in range(25)]
    assert [rates[0] for rates in used] == pytest.approx(expected)
    assert all(len(rates) == 2 and rates[0] == rates[1] for rates in used)


class Exploding(nn.Module):
    """Its output turns to `value` at one call."""

    def __init__(self, at: float, value: float, phase: str = "train") -> None:
        super().__init__()
        self.inner = network()
        self.at, self.value, self.phase, self.calls = at, value, phase, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        wrong = self.calls >= self.at and self.training == (self.phase == "train")
        return self.inner(x) + (self.value if wrong else 0.0)


def exploding(data: Split, **options) -> tuple[Exploding, Trainer]:
    model = Exploding(**options)
    return model, trial_trainer(model, RECIPE, data, seed=0, device=CPU)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(data, value):
    _, training = exploding(data, at=7, value=value)
    training.run_epoch()

    with pytest.raises(DivergedError, match=r"loss became (nan|inf) at epoch 2"):
        training.run_epoch()

    assert training.epoch == 1


def test_a_model_broken_by_the_last_step_of_an_epoch_is_found(data):
    model, training = exploding(data, at=math.inf, value=math.nan)
    weight = part(model.inner, "9", nn.Linear).weight
    weight.register_hook(
        lambda gradient: gradient * (math.inf if model.calls == training.steps_per_epoch else 1.0)
    )

    with pytest.raises(DivergedError, match=r"weights became (nan|inf) at epoch 1"):
        training.run_epoch()


def test_outputs_that_are_no_numbers_on_held_out_images_do_not_end_a_training(data):
    """Running statistics of few steps can do that to weights that are sound."""
    _, training = exploding(data, at=1, value=math.nan, phase="eval")
    assert training.run_epoch().epoch == 1


def test_a_long_epoch_is_not_trained_to_its_end_after_diverging(data, monkeypatch):
    monkeypatch.setattr(trainer_module, "LOOK_EVERY", 2)
    model, training = exploding(data, at=1, value=math.nan)

    with pytest.raises(DivergedError):
        training.run_epoch()

    assert model.calls == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: trainer(data, RECIPE.model_copy(update={"lr": 0.2})), "recipe: .*0.1.*0.2"),
        (lambda data: trainer(data, seed=8), "seed: 3 there, 8 here"),
        (lambda data: trial_trainer(nn.Flatten(), RECIPE, data, seed=3, device=CPU), None),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(data, change, message):
    state = trainer(data).state_dict()

    if message is None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        other = trial_trainer(model, RECIPE, data, seed=3, device=CPU)
        message = "another model"
    else:
        other = change(data)
    with pytest.raises(CheckpointMismatch, match=message):
        other.load_state_dict(state)


def test_everything_is_in_channels_last(data):
    training = trainer(data)
    layouts = []
    convolution = part(training.model, "4", nn.Conv2d)
    convolution.register_forward_pre_hook(
        lambda module, inputs: layouts.append(
            inputs[0].is_contiguous(memory_format=torch.channels_last)
        )
    )

    training.run_epoch()

    assert all(layouts)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


SCRIPT = """
import sys, torch
from afi_search.train import load, save
from tests.train.networks import digits_split, trainer
from tests.typed import part, there
torch.set_num_threads(1)
folder = sys.argv[1]
training = trainer(digits_split())
if state := load(folder):
    training.load_state_dict(state)
print("from", training.epoch, flush=True)
while not training.done:
    training.run_epoch()
    save(training.state_dict(), folder)
    print(training.epoch, flush=True)
    if "--slowly" in sys.argv:
        import time
        time.sleep(0.3)
"""


@pytest.mark.slow
def test_killed_in_the_middle_and_started_again_it_ends_in_the_same_bits(data, tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]

    first = subprocess.Popen(
        [*command, "--slowly"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    while first.stdout.readline().strip() != "2":
        assert first.poll() is None
    time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert second.stdout.split()[1] in {"2", "3"}
    whole = finish(trainer(data))
    for name, value in there(load(str(tmp_path)))["model"].items():
        assert torch.equal(value, whole.model.state_dict()[name]), name
