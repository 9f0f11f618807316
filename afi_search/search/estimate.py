"""What a trial will take on this machine, measured on a few steps of made-up images."""

from __future__ import annotations

import torch

from afi_search.data import DatasetSpec, ImageSet, Split
from afi_search.nn import build
from afi_search.space import Architecture, Recipe
from afi_search.train import seed_everything, trial_trainer

_STEPS = 3


def images_per_second(
    architecture: Architecture, recipe: Recipe, source: DatasetSpec, device: torch.device
) -> float:
    """Train a few steps and return the better of two rounds' speeds, the first being warm-up."""
    seed_everything(0)
    model = build(architecture, num_classes=source.num_classes, image_size=source.image_size)
    data = _made_up(source, train=_STEPS * recipe.batch_size)
    trainer = trial_trainer(
        model, recipe.model_copy(update={"epochs": 3}), data, seed=0, device=device
    )
    return max(trainer.run_epoch().images_per_second for _ in range(2))


def _made_up(source: DatasetSpec, train: int) -> Split:
    return Split(source, _images(source, train), _images(source, source.num_classes))


def _images(source: DatasetSpec, count: int) -> ImageSet:
    size = source.image_size
    return ImageSet(
        torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8),
        torch.arange(count) % source.num_classes,
    )
