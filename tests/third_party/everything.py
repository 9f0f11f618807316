"""One of each kind that a user's module can register, beside the space file that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import toynet  # noqa: F401  a backbone, registered in a module of its own
from optuna import Study
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial
from torch import Tensor, nn

import afi_search
from afi_search.cost import Cost
from afi_search.data import DatasetSpec, ImageSet
from afi_search.space import Architecture


class Gate(nn.Module):
    """An add-on attention: a weight a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Conv2d(channels, channels, 1, groups=channels)

    def forward(self, r: Tensor) -> Tensor:
        return r * self.weight(r).sigmoid()


def read_shades(folder: Path) -> tuple[ImageSet, ImageSet]:
    """Grey squares, dark or bright."""
    labels = torch.arange(96) % 2
    noise = torch.randint(0, 60, (96, 16, 16, 3), generator=torch.Generator().manual_seed(0))
    images = (noise + 150 * labels[:, None, None, None]).to(torch.uint8)
    return ImageSet(images[:72], labels[:72]), ImageSet(images[72:], labels[72:])


class LastSampler(RandomSampler):
    """Answers every question with the last option."""

    def sample_independent(
        self, study: Study, trial: FrozenTrial, name: str, distribution: Any
    ) -> Any:
        assert isinstance(distribution, CategoricalDistribution)
        return distribution.choices[-1]


class OddPruner(BasePruner):
    """Stops every second trial after its first epoch."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return trial.number % 2 == 1


def joules(architecture: Architecture, *, cost: Cost, **sizes: int) -> float:
    """Energy of an image, of arithmetic and of weights that are read."""
    return 1e-6 * cost.macs + 1e-4 * cost.params


def gates(architecture: Architecture, *, cost: Cost, **sizes: int) -> float:
    """Gates of the network, which is built for it."""
    with torch.device("meta"):
        network = afi_search.build(architecture, **sizes)
    return sum(isinstance(module, Gate) for module in network.modules())


afi_search.register_attention(afi_search.Attention("gate", Gate))
afi_search.register_dataset(
    DatasetSpec(
        name="shades",
        num_classes=2,
        image_size=16,
        mean=(0.4, 0.4, 0.4),
        std=(0.3, 0.3, 0.3),
        mirror_safe=True,
        train_images=72,
        validation=24,
    ),
    read_shades,
)
afi_search.register_objective(
    afi_search.Objective("joules", joules, title="energy of an image", unit="J")
)
afi_search.register_objective(afi_search.Objective("gates", gates, direction="up"))
afi_search.register_sampler("last", lambda file, seed: LastSampler(seed))
afi_search.register_pruner("odd", lambda file: OddPruner())
