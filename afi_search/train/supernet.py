"""Training a supernet: which architectures each step trains, and what they inherit from it then.

The network is `nn.supernet`'s, and the Ray worker and the study around it are `engine.supernet`'s.
A step follows the mean of its architectures' losses. What it trains is a function of seed and step
alone, so that any process, after any kill, does the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afi_search.cost import CostTable, SpaceCosts
from afi_search.data import ImageSet, Split
from afi_search.data.dataset import DatasetSpec
from afi_search.data.source import Batch
from afi_search.data.tensor_source import Normalise, TensorSource, normalised_batches
from afi_search.nn import Supernet
from afi_search.nn.ops.common import plain
from afi_search.space import Architecture, Recipe, Space, SpaceFile, StageChoice
from afi_search.space.architecture import choice_text
from afi_search.train.checkpoint import CorruptCheckpoint, load
from afi_search.train.evaluation import Evaluation, Evaluator
from afi_search.train.precision import autocast_dtype
from afi_search.train.trainer import CheckpointMismatch, Trainer, trial_identity

FAIR, SINGLE_PATH, SANDWICH = "fair", "single-path", "sandwich"
CALIBRATION_IMAGES, CALIBRATION_BATCH = 1280, 128
SCORING_PIXELS = 5000 * 32 * 32
"""Of the images that a GPU takes at a time, fewer where its memory does not allow that: launching a
pass takes longer than computing it."""
_RETRIES, _DRAWS = 20, 1000


class Schedule:
    """Which architectures each step trains.

    - `fair` (FairNAS, Chu et al. 2021): every stage has each of its widths once; ratios, attentions
      and scorers come from shuffled decks, so that all are trained equally often. Of a plain list,
      one architecture from a shuffled deck.
    - `single-path` (SPOS, Guo et al. 2020): one architecture, each with the same chance.
    - `sandwich` (Yu et al. 2020): the one with the most MACs, which teaches the others instead of
      the labels, that with the fewest, and two others.

    What does not keep the constraints of the space is not trained: the widths are combined in
    another way, and where no way keeps them, another architecture is drawn.

    >>> from afi_search.space import Space
    >>> costs = SpaceCosts(Space.load("afi-bench-16"), num_classes=100, image_size=16)
    >>> for architecture in Schedule(costs, "fair", seed=0)(7):
    ...     print(architecture)
    resnet20(B-r16, off, off)
    resnet20(off, B-r16, B-r16)
    resnet20(base-r4-eca, base-r4, base-r4-eca)
    """

    def __init__(self, costs: SpaceCosts, strategy: str, seed: int) -> None:
        self._costs = costs
        self._space = costs.space
        self._strategy = strategy
        self._seed = seed
        self._widths = [
            [list(of) for _, of in groupby(sorted(choices, key=_width), key=_width)]
            for choices in self._space.stage_choices
        ]
        self._ends: list[Architecture] | None = None

    @property
    def distils(self) -> bool:
        """Whether the first architecture of a step teaches the others, instead of the labels."""
        return self._strategy == SANDWICH

    @property
    def identity(self) -> dict[str, Any]:
        """What makes another training of another schedule."""
        constraints = self._space.file.constraints.limits()
        choices = [[choice_text(choice) for choice in of] for of in self._space.stage_choices]
        listed = [str(architecture) for architecture in self._space.file.architectures]
        return {"strategy": self._strategy, "choices": choices or listed, **constraints}

    def __call__(self, step: int) -> list[Architecture]:
        """Return the architectures of a step, counted from 0."""
        if self._strategy == SANDWICH:
            return [*self._extremes(), self._any(step, 0), self._any(step, 1)]
        if self._strategy == SINGLE_PATH:
            return [self._any(step)]
        if self._widths:
            drawn = self._fair(step)
        else:
            drawn = [self._space[self._dealt(len(self._space), step)]]
        return [one if self._allows(one) else self._any(step, n) for n, one in enumerate(drawn)]

    def _fair(self, step: int) -> list[Architecture]:
        count = max(map(len, self._widths))
        backbone = str(self._space.file.backbone)
        drawn: list[Architecture] = []
        for attempt in range(_RETRIES):
            stages = [self._each_width(s, step, count, attempt) for s in range(len(self._widths))]
            drawn = [Architecture(backbone, chosen) for chosen in zip(*stages, strict=True)]
            if all(map(self._allows, drawn)):
                break
        return drawn

    def _each_width(
        self, stage: int, step: int, count: int, attempt: int
    ) -> list[StageChoice | None]:
        """Return so many choices of a stage, of each width as often, in random order."""
        widths = self._widths[stage]
        order = self._random(stage, step, attempt).permutation(len(widths))
        rounds = -(-count // len(widths))
        return [
            widths[width][self._dealt(len(widths[width]), step * rounds + turn, stage, width)]
            for turn in range(rounds)
            for width in map(int, order)
        ][:count]

    def _dealt(self, cards: int, use: int, *deck: int) -> int:
        """Return the card of the n-th use of a deck, which is shuffled anew each time it ends."""
        time, position = divmod(use, cards)
        return int(self._random(*deck, time, cards).permutation(cards)[position])

    def _any(self, step: int, number: int = 0) -> Architecture:
        """Draw one that keeps the constraints, where that is rare the next in the space's order."""
        size = len(self._space)
        for index in self._random(step, number).integers(size, size=_DRAWS):
            if self._allows(drawn := self._space[int(index)]):
                return drawn
        order = (self._space[(int(index) + n) % size] for n in range(size))
        return next(filter(self._allows, order))

    def _extremes(self) -> list[Architecture]:
        """Return the architectures with the most and the fewest MACs, of some where limits bind."""
        if self._ends is None:
            fewest, most = self._costs.extremes()
            some = [most, fewest, *(self._any(0, number) for number in range(2, 100))]
            kept = sorted(filter(self._allows, some), key=lambda one: self._costs.of(one).macs)
            self._ends = [kept[-1], kept[0]]
        return self._ends

    def _allows(self, architecture: Architecture) -> bool:
        return self._costs.allow(self._costs.of(architecture))

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, len(what), *what))


def _width(choice: StageChoice | None) -> str:
    return "" if choice is None else choice.width


class InheritedAccuracy:
    """What architectures of a supernet, on the device, reach with the weights they inherit.

    Each gets batch norm statistics of its own first, of images that it was trained on.
    """

    def __init__(self, net: Supernet, data: Split, *, precision: Any, device: torch.device) -> None:
        self.net = net
        self._device = device
        self._dtype = autocast_dtype(precision, device)
        normalise = Normalise(data.spec.mean, data.spec.std, device)
        some = calibration_images(data)
        at_once = max(1, SCORING_PIXELS // data.spec.image_size**2)
        sizes = (CALIBRATION_BATCH, None) if device.type == "cpu" else (at_once, at_once)
        self._calibration = [images for images, _ in normalised_batches(some, normalise, sizes[0])]
        self._validation = list(normalised_batches(data.validation, normalise, sizes[1]))
        self._evaluate = Evaluator(net, device=device, precision=precision)

    def __call__(self, architecture: Architecture) -> Evaluation:
        """Activate, calibrate and evaluate an architecture; waits for the device once."""
        self.net.set_active(architecture)
        with torch.no_grad(), self.net.lent():
            self.calibrate()
            while True:
                try:
                    return self._evaluate(self._validation)
                except torch.OutOfMemoryError:
                    if all(len(labels) == 1 for _, labels in self._validation):
                        raise
                self._validation = [half for batch in self._validation for half in halved(batch)]

    def network(self, architecture: Architecture) -> nn.Module:
        """Return a network of its own with what an architecture inherits, calibrated."""
        self.net.set_active(architecture)
        self.calibrate()
        return self.net.extract()

    def calibrate(self) -> None:
        """Calibrate the batch norms of the active architecture."""
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            self.net.recalibrate(self._calibration)


def halved(batch: Batch) -> Iterator[Batch]:
    """Yield the images and labels of a batch in two halves, or in one where it has one image."""
    images, labels = batch
    return zip(images.chunk(2), labels.chunk(2), strict=True)


class SupernetTrainer(Trainer):
    """Trains a supernet; after an epoch one of its architectures is calibrated and validated.

    Args:
        seed: of order and augmentation; the weights' is the caller's, see `seed_everything`.
        shown: the architecture that is validated.
    """

    def __init__(
        self,
        net: Supernet,
        schedule: Schedule,
        recipe: Recipe,
        data: Split,
        *,
        seed: int,
        shown: Architecture,
        device: torch.device,
    ) -> None:
        identity = trial_identity(recipe, data, seed) | {"supernet": schedule.identity}
        source = TensorSource(data, recipe, seed=seed, device=device)
        super().__init__(net, recipe, source, identity=identity, device=device)
        self._captures = False  # each step runs other kernels
        self.net = net
        self._schedule = schedule
        self._shown = shown
        self._inherited = InheritedAccuracy(net, data, precision=recipe.precision, device=device)
        self._drawn: Sequence[Architecture] = ()

    def step(self, number: int, rounds: Sequence[Sequence[Tensor]]) -> None:
        """Make one step of all, counted from 0, with the architectures of its number."""
        self._drawn = self._schedule(number)
        with plain():  # uncaptured, a GPU waits for Python, which calls torch's operations sooner
            super().step(number, rounds)

    def _validate(self) -> Evaluation:
        return self._inherited(self._shown)

    def _learn(self, images: Tensor, labels: Tensor, rounds: int) -> Tensor:
        """Add the gradients of the mean of the architectures' losses; return that mean."""
        losses, target = [], labels
        for architecture in self._drawn:
            self.net.set_active(architecture)
            logits = self._logits(images)
            loss = self._loss(logits, target)
            torch.autograd.backward(loss / (rounds * len(self._drawn)))
            losses.append(loss.detach())
            if self._schedule.distils and target is labels:
                target = logits.detach().softmax(dim=1)
        return torch.stack(losses).mean()


def supernet_trainer(
    file: SpaceFile,
    costs: CostTable,
    shown: Architecture,
    recipe: Recipe,
    data: Split,
    *,
    seed: int,
    device: torch.device,
) -> SupernetTrainer:
    """Return the trainer of a space's supernet, whose weights are drawn now."""
    space, classes, size = Space(file), data.spec.num_classes, data.spec.image_size
    known = SpaceCosts(space, num_classes=classes, image_size=size, kept=costs)
    schedule = Schedule(known, file.search.supernet.sampling, seed)
    net = Supernet(space, num_classes=classes, image_size=size)
    return SupernetTrainer(net, schedule, recipe, data, seed=seed, shown=shown, device=device)


def inherited_accuracy(
    file: SpaceFile, checkpoints: str, data: Split, *, precision: Any, device: torch.device
) -> InheritedAccuracy:
    """Return what scores architectures with a supernet's weights; a CheckpointMismatch: none."""
    try:
        state = load(checkpoints)
    except CorruptCheckpoint as error:
        raise CheckpointMismatch(str(error)) from None
    if state is None:
        raise CheckpointMismatch(
            f"{checkpoints} has no weights of the supernet, which are to be inherited"
        )
    net = restored(file, data.spec, state).to(device).eval()
    return InheritedAccuracy(net, data, precision=precision, device=device)


def restored(file: SpaceFile, spec: DatasetSpec, state: Mapping[str, Any]) -> Supernet:
    """Return a space's supernet for images of a data set, as a checkpoint has it."""
    net = Supernet(Space(file), num_classes=spec.num_classes, image_size=spec.image_size)
    net.load_state_dict(state["model"])
    return net.to(memory_format=torch.channels_last)


def calibration_images(data: Split, most: int = CALIBRATION_IMAGES) -> ImageSet:
    """Return training images spread over all of them, without the padding around them."""
    count = len(data.train)
    chosen = torch.linspace(0, count - 1, min(count, most)).long()
    some, pad = data.train.select(chosen), data.padding
    if not pad:
        return some
    return replace(some, images=some.images[:, pad:-pad, pad:-pad])
