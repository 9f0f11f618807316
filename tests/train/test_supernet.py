"""Training a supernet: what each step trains, bit-equal resume, and what is inherited."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch

from afi_search.cost import SpaceCosts
from afi_search.data import Split, read_data, split_of
from afi_search.nn import Supernet, build
from afi_search.search.rank import trainings
from afi_search.space import Architecture, Recipe, Space
from afi_search.space.schema import Data, SpaceFile
from afi_search.train import Evaluator, load, save, seed_everything, trial_trainer
from afi_search.train.optimiser import parameter_groups
from afi_search.train.supernet import (
    FAIR,
    SANDWICH,
    SINGLE_PATH,
    InheritedAccuracy,
    Schedule,
    SupernetTrainer,
)
from tests.typed import part, there

DIGITS = {"name": "digits", "image_size": 16, "train_subset": 150, "validation_subset": 60}
CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, precision="fp32")
ALL = {
    "width": ["off", "base", "B"],
    "ratio": [4, 16],
    "attention": ["none", "eca"],
    "scorer": ["block", "stage"],
}


def costs_of(**file) -> SpaceCosts:
    defaults = {} if "architectures" in file else {"backbone": "resnet20", "stages": {"all": ALL}}
    space = Space(SpaceFile.model_validate({**defaults, "data": DIGITS, **file}))
    return SpaceCosts(space, num_classes=10, image_size=16)


@pytest.fixture(scope="module")
def costs() -> SpaceCosts:
    return costs_of()


@pytest.fixture(scope="module")
def data():
    return split_of(Data(**DIGITS), read_data(Data(**DIGITS)))


def trainer(costs: SpaceCosts, data, strategy: str = FAIR, seed: int = 3) -> SupernetTrainer:
    seed_everything(seed)
    schedule = Schedule(costs, strategy, seed)
    shown = costs.space[0]
    net = Supernet(costs.space)
    return SupernetTrainer(net, schedule, RECIPE, data, seed=seed, shown=shown, device=CPU)


@pytest.mark.parametrize("strategy", [FAIR, SINGLE_PATH, SANDWICH])
def test_a_step_depends_on_seed_and_number_alone(costs, strategy):
    one, other = Schedule(costs, strategy, 5), Schedule(costs, strategy, 5)
    forwards = [one(step) for step in range(8)]
    assert forwards == [other(step) for step in reversed(range(8))][::-1]
    assert forwards != [Schedule(costs, strategy, 6)(step) for step in range(8)]
    assert all(architecture in costs.space for drawn in forwards for architecture in drawn)


def test_fair_steps_have_each_width_once_and_use_all_choices_equally(costs):
    schedule = Schedule(costs, FAIR, 0)
    used: list[Counter[Any]] = [Counter() for _ in range(3)]
    for step in range(24):  # three decks of 8 in each width
        drawn = schedule(step)
        for stage, count in enumerate(used):
            chosen = [architecture.stages[stage] for architecture in drawn]
            assert {None if c is None else c.width for c in chosen} == {None, "base", "B"}
            count.update(chosen)
    for count, choices in zip(used, costs.space.stage_choices, strict=True):
        by_width = Counter(None if c is None else c.width for c in choices)
        for choice in choices:
            width = None if choice is None else choice.width
            assert count[choice] == 24 / by_width[width], choice


def test_widths_meet_each_other(costs):
    schedule = Schedule(costs, FAIR, 0)
    widths = {
        tuple(c and c.width for c in architecture.stages)
        for step in range(60)
        for architecture in schedule(step)
    }
    assert len(widths) == 27


def test_a_stage_with_fewer_widths_has_each_as_often_as_it_goes():
    stages = {"all": ALL, 2: {"choice": ["base-r4", "base-r16"]}}
    drawn = Schedule(costs_of(stages=stages), FAIR, 0)(0)
    assert [str(a.stages[1])[:4] for a in drawn] == ["base"] * 3


@pytest.mark.parametrize(
    "file",
    [
        {},
        {"backbone": "resnet20", "stages": {"all": {"choice": ["off", "B-r4", "B-r8"]}}},
        {"architectures": ["resnet20", "resnet20(base-r4)"]},
    ],
)
@pytest.mark.parametrize("strategy", [FAIR, SINGLE_PATH, SANDWICH])
def test_what_a_training_costs_is_what_its_steps_train(strategy: str, file: dict[str, Any]) -> None:
    recipe, search = {"epochs": 4}, {"supernet": {"sampling": strategy}}
    costs = costs_of(**file, recipe=recipe, search=search)
    at_once = len(Schedule(costs, strategy, 0)(0))
    assert trainings(costs.space, 6) == at_once * 6 / 4


@pytest.mark.parametrize("strategy", [FAIR, SINGLE_PATH, SANDWICH])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_limits_are_kept(costs, strategy, share):
    fewest, most = (costs.of(a).macs for a in costs.extremes())
    limit = int(fewest + share * (most - fewest))
    limited = costs_of(constraints={"macs": limit})
    schedule = Schedule(limited, strategy, 0)
    trained = [a for step in range(10) for a in schedule(step)]
    assert all(limited.of(a).macs <= limit for a in trained)
    assert len(set(trained)) > 1


def test_the_sandwichs_first_is_the_largest_and_teaches(costs):
    schedule = Schedule(costs, SANDWICH, 0)
    drawn = schedule(4)
    macs = [costs.of(architecture).macs for architecture in drawn]
    assert (macs[0], macs[1]) == (max(macs), min(macs))
    assert schedule.distils and not Schedule(costs, FAIR, 0).distils


def test_of_a_list_each_architecture_is_trained_equally_often():
    listed = ["resnet20", "resnet20(base-r4)", "resnet20(off, B-r4, off)"]
    schedule = Schedule(costs_of(architectures=listed), FAIR, 0)
    used = Counter(a for step in range(9) for a in schedule(step))
    assert used == {Architecture.parse(text): 3 for text in listed}


def test_a_supernet_of_one_architecture_trains_as_a_trial_does(data):
    text = "resnet20(base-r4, off, B-r4)"
    nets = trainer(costs_of(architectures=[text]), data)
    seed_everything(3)
    alone = trial_trainer(
        build(text, num_classes=10, image_size=16), RECIPE, data, seed=3, device=CPU
    )
    while not alone.done:
        assert nets.run_epoch().loss == alone.run_epoch().loss
    theirs = dict(alone.model.named_parameters())
    for name, tensor in part(nets.model, "", Supernet).extract().named_parameters():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("strategy", [FAIR, SANDWICH])
def test_a_resumed_training_ends_in_the_same_bits(costs, data, strategy, tmp_path):
    whole = trainer(costs, data, strategy)
    whole.run_epoch()
    save(whole.state_dict(), str(tmp_path))
    whole.run_epoch()

    resumed = trainer(costs, data, strategy, seed=3)
    resumed.load_state_dict(there(load(str(tmp_path))))
    resumed.run_epoch()

    state = resumed.model.state_dict()
    assert all(torch.equal(state[name], t) for name, t in whole.model.state_dict().items())
    assert [e.accuracy for e in resumed.history] == [e.accuracy for e in whole.history]


def test_what_is_inherited_is_what_the_extracted_network_reaches(costs, data):
    training = trainer(costs, data)
    training.run_epoch()
    net = part(training.model, "", Supernet)
    inherited = InheritedAccuracy(net, data, precision="fp32", device=CPU)
    one, other = Architecture.parse("resnet20(base-r4-eca)"), Architecture.parse("resnet20")
    first = inherited(one)
    alone = net.extract(one).to(memory_format=torch.channels_last)
    inherited(other)
    assert inherited(one) == first
    evaluate = Evaluator(alone, device=CPU, precision="fp32")
    validation = training._source.validation()
    assert evaluate(validation) == first


def test_where_memory_does_not_allow_it_fewer_images_are_validated_at_a_time(
    costs: SpaceCosts, data: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Supernet(costs.space)
    inherited = InheritedAccuracy(net, data, precision="fp32", device=CPU)
    at_once, sizes, forward = inherited(net.active), [], net.forward

    def limited(images: torch.Tensor, most: int = 20) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError
        return forward(images)

    monkeypatch.setattr(net, "forward", limited)
    assert inherited(net.active) == at_once
    assert sizes == [60, 30, 15, 15, 15, 15]
    monkeypatch.setattr(net, "forward", partial(limited, most=0))
    with pytest.raises(torch.OutOfMemoryError):
        inherited(net.active)


def test_a_step_of_two_rounds_follows_the_mean_of_both(costs, data):
    """Accumulated, as where a device cannot take a batch at once: each round has a half's loss."""
    training = trainer(costs, data)
    halves = [training._source.batch(*next(training._source.epoch(0))) for _ in range(2)]
    training._drawn = training._schedule(0)
    training.model.train()

    def gradients(rounds: int, *batches: Any) -> list[torch.Tensor]:
        training.model.zero_grad()
        for images, labels in batches:
            training._learn(images, labels, rounds)
        return [p.grad for p in training.model.parameters() if p.grad is not None]

    alone = zip(*(gradients(1, half) for half in halves), strict=True)
    for together, (one, other) in zip(gradients(2, *halves), alone, strict=True):
        torch.testing.assert_close(together, (one + other) / 2)


@pytest.mark.slow
def test_all_architectures_learn():
    more = Data(**DIGITS | {"train_subset": 600})
    data = split_of(more, read_data(more))
    recipe = Recipe(
        epochs=4, batch_size=32, lr=0.1, schedule="triangular", nesterov=True, warmup=0.3, pad=2
    )
    costs = costs_of(stages={"all": {"choice": ["off", "base-r4", "B-r4"]}})
    seed_everything(0)
    net = Supernet(costs.space)
    schedule = Schedule(costs, FAIR, 0)
    shown = Architecture.parse("resnet20")
    training = SupernetTrainer(net, schedule, recipe, data, seed=0, shown=shown, device=CPU)
    while not training.done:
        result = training.run_epoch()
    inherited = InheritedAccuracy(net, data, precision="fp32", device=CPU)
    reached = [inherited(a).accuracy for a in list(costs.space.architectures())[::5]]
    assert result.accuracy == inherited(shown).accuracy
    assert min(reached) > 0.5, reached


def test_norms_of_a_supernet_do_not_decay(costs):
    recipe = RECIPE.model_copy(update={"weight_decay_on_norm": False})
    decaying, free = parameter_groups(Supernet(costs.space), recipe)
    assert all(parameter.dim() > 1 for parameter in decaying["params"])
    assert all(parameter.dim() == 1 for parameter in free["params"])
