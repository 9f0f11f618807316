from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from afi_search.space.recipe import Recipe
from afi_search.train.optimiser import build_optimiser, learning_rate, parameter_groups
from tests.typed import part


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2)
    )


def decays(model: nn.Module, recipe: Recipe) -> dict[str, float]:
    groups = parameter_groups(model, recipe)
    of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    return {name: of[id(p)] for name, p in model.named_parameters()}


def test_everything_decays_in_the_papers_recipe():
    assert set(decays(network(), Recipe(weight_decay=0.5)).values()) == {0.5}


def test_norms_and_biases_are_spared_when_the_recipe_says_so():
    found = decays(network(), Recipe(weight_decay=0.5, weight_decay_on_norm=False))

    spared = {name for name, decay in found.items() if decay == 0}
    assert spared == {"0.bias", "1.weight", "1.bias", "2.bias", "4.bias"}
    assert {found[name] for name in found.keys() - spared} == {0.5}


def test_shared_and_frozen_parameters():
    model = network()
    part(model, "2", nn.Conv2d).weight.requires_grad_(False)
    model.append(model[4])

    groups = parameter_groups(model, Recipe(weight_decay_on_norm=False))

    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed)) == len(list(model.parameters())) - 1


def test_three_steps_are_the_textbooks_nesterov_with_decay_and_a_changing_rate():
    weight = torch.tensor([1.0, -2.0])
    model = nn.Linear(2, 1, bias=False)
    model.weight.data.copy_(weight)
    rate = torch.zeros(())
    recipe = Recipe(momentum=0.9, nesterov=True, weight_decay=0.01)
    optimiser = build_optimiser(model, recipe, rate)

    expected, velocity = weight.double(), torch.zeros(2).double()
    gradient = torch.tensor([0.3, -0.1])
    for lr in (0.1, 0.2, 0.05):
        rate.fill_(lr)
        model.weight.grad = gradient.view(1, 2).clone()
        optimiser.step()
        g = gradient.double() + 0.01 * expected
        velocity = 0.9 * velocity + g
        expected = expected - lr * (g + 0.9 * velocity)

    torch.testing.assert_close(model.weight.data.double().flatten(), expected, rtol=1e-5, atol=0)


def test_without_momentum_nesterov_means_nothing():
    recipe = Recipe(momentum=0.0, nesterov=True)

    optimiser = build_optimiser(network(), recipe, torch.zeros(()))

    assert not optimiser.defaults["nesterov"]


def rates(total: int, **recipe) -> list[float]:
    return [learning_rate(Recipe(lr=1.0, **recipe), step, total) for step in range(total)]


def test_step_drops_at_the_papers_epochs():
    per_epoch = 704
    total = 300 * per_epoch
    paper = Recipe()

    def rate(epoch: int, step: int) -> float:
        return learning_rate(paper, epoch * per_epoch + step, total)

    assert rate(0, 0) == rate(149, per_epoch - 1) == 0.1
    assert rate(150, 0) == rate(224, per_epoch - 1) == pytest.approx(0.01)
    assert rate(225, 0) == rate(299, per_epoch - 1) == pytest.approx(0.001)


def test_step_drops_by_its_own_factor_at_its_own_fractions():
    expected = [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    assert rates(10, drops_at=(0.3, 0.6, 0.9), drop=2.0) == expected


def test_triangular_rises_to_its_peak_and_falls_to_just_above_zero():
    assert rates(8, schedule="triangular", warmup=0.5) == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]


def test_triangular_without_warmup_starts_at_the_peak():
    assert rates(4, schedule="triangular") == [1, 0.75, 0.5, 0.25]


def test_cosine_is_half_way_down_in_the_middle():
    assert rates(4, schedule="cosine") == pytest.approx([1, 0.8535534, 0.5, 0.1464466])


def test_warmup_precedes_every_schedule():
    assert rates(6, schedule="cosine", warmup=0.5)[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert rates(4, schedule="step", warmup=0.25, drops_at=()) == [1, 1, 1, 1]


def test_a_training_that_only_warms_up_ends_at_the_peak():
    assert rates(4, schedule="triangular", warmup=1.0) == [0.25, 0.5, 0.75, 1]


def test_one_step_is_enough():
    for schedule in ("step", "cosine", "triangular"):
        assert rates(1, schedule=schedule, drops_at=(1.0,)) == [1]


@given(
    st.sampled_from(["step", "cosine", "triangular"]),
    st.floats(0, 1),
    st.integers(1, 500),
)
@settings(max_examples=80, deadline=None)
def test_every_rate_is_positive_at_most_the_peak_and_one_step_reaches_it(schedule, warmup, total):
    found = rates(total, schedule=schedule, warmup=warmup, drops_at=(1.0,))

    assert all(0 < rate <= 1 for rate in found)
    assert max(found) == 1
    peak = found.index(1)
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)
