from __future__ import annotations

import torch
from torch import nn

from afi_search.space.recipe import Recipe
from afi_search.train.optimiser import build_optimiser, parameter_groups
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
