"""Batches of images from folders: decoded and augmented by torchvision v2 on CPU processes.

Order and augmentation depend on seed, epoch and image alone: not on how many processes load, nor
on what was loaded before. So a training that goes on after a crash sees what it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from afi_search.data.image_folder import Images, ImagesError
from afi_search.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from afi_search.space.imagenet_recipe import ImageNetRecipe, RecipeError

Batch = tuple[Tensor, Tensor]
"""Images, B x 3 x H x W uint8, and labels, B int64."""


class Loader(Protocol):
    """What a trainer asks of a loader."""

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield an epoch's batches for this process, `Shares.rounds` a step."""

    def validation(self) -> Iterator[Batch]:
        """Yield this process's part of the validation images, each image once."""


@dataclass(frozen=True)
class Shares:
    """How a step's batch is shared out.

    Attributes:
        rank, world: this process and how many there are.
        rounds: batches whose gradients add up to a step.
        size: images in each of them, for each process.
    """

    rank: int
    world: int
    rounds: int
    size: int

    @property
    def batch_size(self) -> int:
        """Images a step, over all processes."""
        return self.world * self.rounds * self.size

    def steps(self, images: int) -> int:
        """Return the steps of an epoch; the last is filled up from the epoch's beginning."""
        return -(-images // self.batch_size)


def share_out(batch_size: int, images_per_device: int, rank: int, world: int) -> Shares:
    """Share a batch out to devices, in as few rounds as fit.

    Raises:
        RecipeError: the batch cannot be divided by the number of devices.
    """
    if batch_size % world:
        raise RecipeError(
            f"batch_size: {batch_size} cannot be divided among {world} workers; take another "
            f"number of --workers, or a multiple of {world} in the recipe"
        )
    share = batch_size // world
    rounds = next(
        r for r in range(1, share + 1) if share % r == 0 and share // r <= images_per_device
    )
    return Shares(rank, world, rounds, share // rounds)


def epoch_order(images: int, shares: Shares, seed: int, epoch: int) -> Tensor:
    """Return a process's images of an epoch in order, steps x rounds x size, int64."""
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
    order = torch.randperm(images, generator=generator)
    steps = shares.steps(images)
    filled = order.repeat(-(-steps * shares.batch_size // images))[: steps * shares.batch_size]
    return filled.view(steps, shares.rounds, shares.world, shares.size)[:, :, shares.rank]


def derived_seed(*parts: int) -> int:
    """Return a seed that depends on all the numbers given."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class TorchvisionLoader:
    """The default loader.

    Args:
        images: as listed.
        recipe: crops, augmentation and seed.
        shares: how batches are shared out.
        processes: that decode and augment; 0 does it in this one.
    """

    def __init__(
        self, images: Images, recipe: ImageNetRecipe, shares: Shares, processes: int
    ) -> None:
        self._order = _EpochOrder(len(images.train), shares, recipe.seed)
        self._train = DataLoader(
            _AugmentedImages(images, recipe),
            batch_sampler=self._order,
            num_workers=processes,
            persistent_workers=processes > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )
        own = images.validation[shares.rank :: shares.world]
        self._validation = DataLoader(
            _PlainImages(images, own, evaluation(recipe)),
            batch_size=shares.size,
            num_workers=processes,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches; see `Loader`."""
        self._order.epoch = epoch
        yield from self._train

    def validation(self) -> Iterator[Batch]:
        """Yield the validation images; see `Loader`."""
        yield from self._validation


def evaluation(recipe: ImageNetRecipe) -> Preprocessing:
    """Return what is done to an image that is classified."""
    return Preprocessing(
        resize=recipe.eval_resize, crop=recipe.eval_crop, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )


def augmentation(recipe: ImageNetRecipe) -> v2.Compose:
    """Return what is done to an image that is trained on: 3 x H x W to 3 x crop x crop, uint8."""
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(recipe.train_crop, antialias=True),
        v2.RandomHorizontalFlip(),
    ]
    if recipe.augment == "trivial":
        steps.append(v2.TrivialAugmentWide())
    return v2.Compose(steps)


class _EpochOrder(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch as lists of (epoch, image), so that workers know the epoch."""

    def __init__(self, images: int, shares: Shares, seed: int) -> None:
        self.epoch = 0
        self._images = images
        self._shares = shares
        self._seed = seed

    def __len__(self) -> int:
        return self._shares.steps(self._images) * self._shares.rounds

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = epoch_order(self._images, self._shares, self._seed, self.epoch)
        for batch in order.flatten(0, 1).tolist():
            yield [(self.epoch, image) for image in batch]


class _AugmentedImages(Dataset[Batch]):
    def __init__(self, images: Images, recipe: ImageNetRecipe) -> None:
        self._images = images
        self._augment = augmentation(recipe)
        self._seed = recipe.seed

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        epoch, index = item
        path, label = self._images.train[index]
        pixels = _read(self._images, path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self._seed, epoch, index))
            return self._augment(pixels), torch.tensor(label)


class _PlainImages(Dataset[Batch]):
    def __init__(
        self, images: Images, own: Sequence[tuple[str, int]], preprocessing: Preprocessing
    ) -> None:
        self._images = images
        self._own = own
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self._own)

    def __getitem__(self, index: int) -> Batch:
        path, label = self._own[index]
        return self._preprocessing.cropped(_read(self._images, path)), torch.tensor(label)


def _read(images: Images, path: str) -> Tensor:
    try:
        pixels: Tensor = decode_image(str(images.folder / path), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ImagesError(f"{images.folder / path}: cannot be read: {reason}") from None
    return pixels
