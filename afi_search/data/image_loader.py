"""Batches of images from folders: decoded and augmented by torchvision v2 on CPU processes.

Order and augmentation depend on seed, epoch and image alone: not on how many processes load, nor
on what was loaded before. So a training that is resumed sees what it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torchvision.transforms import v2

from afi_search.data.image_folder import Images
from afi_search.data.image_reader import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageError,
    Preprocessing,
    read_image,
)
from afi_search.data.source import Batch, BatchSharding
from afi_search.errors import UserError
from afi_search.formatting import in_a_line
from afi_search.space.recipe import ImageNetRecipe


class Loader(Protocol):
    """What an `ImageSource` asks of a loader; its images are B x 3 x H x W uint8.

    `left_out` says why each image that turned out broken was left out, by its path.
    """

    left_out: dict[str, str]

    def train(self, epoch: int) -> Iterator[Batch]:
        """Yield an epoch's batches for this process, `accumulation_steps` a step."""

    def validation(self) -> Iterator[Batch]:
        """Yield this process's part of the validation images, each image once."""


def share_out(batch_size: int, images_per_device: int, rank: int, world: int) -> BatchSharding:
    """Share a batch out to devices, in as few rounds as fit; a UserError where that cannot be.

    >>> share_out(256, images_per_device=48, rank=0, world=2)
    BatchSharding(rank=0, world=2, accumulation_steps=4, per_device_batch=32)
    """
    if batch_size % world:
        raise UserError(
            f"batch_size: {batch_size} cannot be divided among {world} workers; take another "
            f"number of --workers, or a multiple of {world} in the recipe"
        )
    share = batch_size // world
    rounds = next(
        r for r in range(1, share + 1) if share % r == 0 and share // r <= images_per_device
    )
    return BatchSharding(rank, world, rounds, share // rounds)


def epoch_order(images: int, sharding: BatchSharding, seed: int, epoch: int) -> Tensor:
    """Return a process's images of an epoch in order, steps x rounds x size, int64."""
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
    order = torch.randperm(images, generator=generator)
    samples = sharding.steps(images) * sharding.batch_size
    filled = order.repeat(-(-samples // images))[:samples]
    rounds = (-1, sharding.accumulation_steps, sharding.world, sharding.per_device_batch)
    return filled.view(rounds)[:, :, sharding.rank]


def derived_seed(*parts: int) -> int:
    """Return a seed that depends on all the numbers given."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class ImageSource:
    """Images in folders, as one process of many or alone; see `DataSource`.

    Nothing random outlives an epoch: order, crops and mixtures are drawn from seeds made of the
    recipe's seed, the epoch and the process, so that any number of processes can resume.
    """

    capturable = False

    def __init__(
        self,
        loader: Loader,
        recipe: ImageNetRecipe,
        sharding: BatchSharding,
        *,
        images: int,
        num_classes: int,
        device: torch.device,
    ) -> None:
        self.sharding = sharding
        self.steps_per_epoch = sharding.steps(images)
        self._loader, self._seed, self._device = loader, recipe.seed, device
        self._preprocessing = evaluation(recipe)
        kinds = ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
        mixes = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha]
        self._mix = v2.RandomChoice(mixes) if mixes else v2.Identity()

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the loader's batches; also seeds what mixing and dropout draw from."""
        torch.manual_seed(derived_seed(self._seed, number, self.sharding.rank))
        return self._loader.train(number)

    def batch(self, *parts: Tensor) -> Batch:
        mixed: Batch = self._mix(*self._moved(*parts))
        return mixed

    def validation(self) -> Iterator[Batch]:
        return (self._moved(*batch) for batch in self._loader.validation())

    def get_state(self) -> None:
        """Return None: the seed and the epoch's number say it all."""

    def set_state(self, state: Tensor | None) -> None:
        """Do nothing."""

    def _moved(self, images: Tensor, labels: Tensor) -> Batch:
        moved = images.to(self._device, non_blocking=True)
        return self._preprocessing.normalised(moved), labels.to(self._device, non_blocking=True)


class TorchvisionLoader:
    """The default loader: so many processes decode and augment; with 0 it does so in this one.

    An image that cannot be read stops it, unless what is broken is to be skipped.
    """

    def __init__(
        self,
        images: Images,
        recipe: ImageNetRecipe,
        sharding: BatchSharding,
        processes: int,
        *,
        skip_broken: bool = False,
    ) -> None:
        self.left_out: dict[str, str] = {}
        self._order = _EpochOrder(len(images.train), sharding, recipe.seed)
        listed = partial(_Listed, images.folder, skip_broken)
        loader = partial(
            DataLoader,
            collate_fn=_collate,
            num_workers=processes,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )
        self._train = loader(
            listed(images.train, augmentation(recipe)),
            batch_sampler=self._order,
            persistent_workers=processes > 0,
        )
        own = images.validation[sharding.rank :: sharding.world]
        self._validation = loader(
            listed(own, evaluation(recipe).cropped), batch_size=sharding.per_device_batch
        )

    def train(self, epoch: int) -> Iterator[Batch]:
        self._order.epoch = epoch
        yield from self._noted(self._train)

    def validation(self) -> Iterator[Batch]:
        yield from self._noted(self._validation)

    def _noted(self, batches: Iterable[Item]) -> Iterator[Batch]:
        for batch, left_out in batches:
            self.left_out.update(left_out)
            if batch is not None:
                yield batch


def evaluation(recipe: ImageNetRecipe) -> Preprocessing:
    """Return what is done to an image that is classified."""
    return Preprocessing(
        resize=recipe.eval_resize, crop=recipe.eval_crop, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )


def augmentation(recipe: ImageNetRecipe) -> v2.Compose:
    """Return what is done to an image that is trained on: 3 x H x W to 3 x crop x crop, uint8."""
    crop = v2.RandomResizedCrop(recipe.train_crop, antialias=True)
    trivial = [v2.TrivialAugmentWide()] if recipe.augment == "trivial" else []
    return v2.Compose([crop, v2.RandomHorizontalFlip(), *trivial])


@dataclass
class _EpochOrder(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch as lists of (seed, image), so that each is augmented by its own."""

    images: int
    sharding: BatchSharding
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        return self.sharding.steps(self.images) * self.sharding.accumulation_steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = epoch_order(self.images, self.sharding, self.seed, self.epoch)
        for batch in order.flatten(0, 1).tolist():
            yield [(derived_seed(self.seed, self.epoch, image), image) for image in batch]


Item = tuple[Batch | None, dict[str, str]]
"""An image and its label, None where it is left out; and why each path was left out."""


@dataclass
class _Listed(Dataset[Item]):
    """Images of a list, transformed: by their place, or by (seed, place) where that is random.

    With a seed the next image takes the place of one that cannot be read, without one nothing does.
    """

    folder: Path
    skip_broken: bool
    listed: Sequence[tuple[str, int]]
    transform: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, item: int | tuple[int, int]) -> Item:
        left_out: dict[str, str] = {}
        if isinstance(item, int):
            return self._image(item, left_out), left_out
        seed, place = item
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for step in range(len(self)):
                found = self._image((place + step) % len(self), left_out)
                if found is not None:
                    return found, left_out
        raise UserError(f"{in_a_line(self.folder)}: no image can be read any more")

    def _image(self, place: int, left_out: dict[str, str]) -> Batch | None:
        path, label = self.listed[place]
        try:
            pixels = read_image(self.folder / path)
        except ImageError as error:
            if not self.skip_broken:
                raise UserError(f"{error}. To leave out what is broken: --skip-broken") from None
            left_out[path] = str(error)
            return None
        return self.transform(pixels), torch.tensor(label)


def _collate(items: Sequence[Item]) -> Item:
    """Return the batch of what could be read, None where nothing could, and what was left out."""
    kept = [batch for batch, _ in items if batch is not None]
    left_out = {path: reason for _, noted in items for path, reason in noted.items()}
    return (default_collate(kept) if kept else None), left_out
