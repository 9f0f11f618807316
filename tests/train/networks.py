"""A small network that has what can go wrong on resuming: batch norm, dropout, decay groups."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from afi_search.data import Split, load, split
from afi_search.space.recipe import Recipe
from afi_search.train import Trainer, seed_everything, trial_trainer


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


RECIPE = Recipe(
    epochs=5,
    batch_size=32,
    lr=0.1,
    nesterov=True,
    schedule="triangular",
    warmup=0.3,
    label_smoothing=0.1,
    weight_decay_on_norm=False,
    precision="fp32",
)


def digits_split() -> Split:
    """Return 150 and 60 digits, mirrored for the sake of the tests."""
    data = split(load("digits"), train_subset=150, validation_subset=60)
    return replace(data, spec=replace(data.spec, mirror_safe=True))


def trainer(data: Split, recipe: Recipe = RECIPE, seed: int = 3) -> Trainer:
    """Return what a fresh process would make."""
    seed_everything(seed)
    return trial_trainer(network(), recipe, data, seed=seed, device=torch.device("cpu"))
