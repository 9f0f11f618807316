"""Batches of images from folders, decoded and augmented by NVIDIA DALI, on the GPU if there is one.

pip install 'afi-search[dali]'

The order of the images is the other loader's. Crops and augmentation are drawn by DALI's own
generators from seed, epoch and process: an epoch is the same whenever it is loaded, but it is not
torchvision's, and with another number of processes it is another one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afi_search.data.image_folder import Images
from afi_search.data.image_loader import derived_seed, epoch_order
from afi_search.data.image_reader import ImageError, read_image
from afi_search.data.source import Batch, BatchSharding
from afi_search.errors import UserError
from afi_search.space.recipe import ImageNetRecipe

Listed = Sequence[tuple[str, int]]
"""A batch's images: paths below the folder, and labels."""


def require_dali() -> None:
    """Raise UserError where DALI is not installed."""
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        raise UserError(
            "loader dali: NVIDIA DALI is not installed. Install it with: "
            "pip install 'afi-search[dali]', or take the loader torchvision"
        )


@dataclass
class DaliLoader:
    """Loads with DALI; see `Loader`.

    DALI decodes whole batches, on `threads` CPU threads or on the GPU, so that an image which turns
    out broken always stops it.
    """

    images: Images
    recipe: ImageNetRecipe
    sharding: BatchSharding
    threads: int
    device: torch.device
    left_out: dict[str, str] = field(default_factory=dict, init=False)

    def train(self, epoch: int) -> Iterator[Batch]:
        order = epoch_order(len(self.images.train), self.sharding, self.recipe.seed, epoch)
        batches = ([self.images.train[i] for i in batch] for batch in order.flatten(0, 1).tolist())
        seed = derived_seed(self.recipe.seed, epoch, self.sharding.rank)
        yield from self._load(batches, augmented, seed)

    def validation(self) -> Iterator[Batch]:
        own = self.images.validation[self.sharding.rank :: self.sharding.world]
        size = self.sharding.per_device_batch
        batches = (own[start : start + size] for start in range(0, len(own), size))
        yield from self._load(batches, cropped, seed=0)

    def _load(
        self, batches: Iterable[Listed], graph: Callable[[Any, ImageNetRecipe, str], Any], seed: int
    ) -> Iterator[Batch]:
        from nvidia.dali import fn, pipeline_def
        from nvidia.dali.plugin.pytorch import DALIGenericIterator

        asked_for: deque[Listed] = deque(maxlen=4)  # may fail while later ones are asked for
        on_gpu = self.device.type == "cuda"

        @pipeline_def(enable_conditionals=True)
        def pipeline() -> tuple[Any, Any]:
            source = _read(self.images.folder, batches, asked_for)
            encoded, labels = fn.external_source(source=source, num_outputs=2)
            return graph(encoded, self.recipe, "mixed" if on_gpu else "cpu"), labels

        built = pipeline(
            batch_size=self.sharding.per_device_batch,
            num_threads=self.threads,
            device_id=(self.device.index or 0) if on_gpu else None,
            seed=seed % 2**31,
        )
        try:
            for (batch,) in DALIGenericIterator([built], ["images", "labels"], dynamic_shape=True):
                yield batch["images"].permute(0, 3, 1, 2), batch["labels"].flatten()
        except RuntimeError as error:
            paths = [self.images.folder / path for batch in asked_for for path, _ in batch]
            raise UserError(_reason(error, paths)) from None


def augmented(encoded: Any, recipe: ImageNetRecipe, decoder: str) -> Any:
    """Return the part of a pipeline that turns files into images to train on, H x W x 3 uint8."""
    from nvidia.dali import fn, types
    from nvidia.dali.auto_aug import trivial_augment

    images = fn.decoders.image_random_crop(
        encoded,
        device=decoder,
        output_type=types.RGB,
        random_area=(0.08, 1),
        random_aspect_ratio=(3 / 4, 4 / 3),
    )
    images = fn.resize(images, size=(recipe.train_crop, recipe.train_crop))
    images = fn.flip(images, horizontal=fn.random.coin_flip())
    if recipe.augment == "trivial":
        images = trivial_augment.trivial_augment_wide(images)
    return images


def cropped(encoded: Any, recipe: ImageNetRecipe, decoder: str) -> Any:
    """Return the part of a pipeline that turns files into images to test on, H x W x 3 uint8."""
    from nvidia.dali import fn, types

    images = fn.decoders.image(encoded, device=decoder, output_type=types.RGB)
    images = fn.resize(images, resize_shorter=recipe.eval_resize)
    return fn.crop(images, crop=(recipe.eval_crop, recipe.eval_crop))


def _read(
    folder: Path, batches: Iterable[Listed], asked_for: deque[Listed]
) -> Iterator[tuple[list[NDArray[np.uint8]], NDArray[np.int64]]]:
    """Yield the files' bytes and the labels, B x 1, of each batch, and note what was asked for."""
    for batch in batches:
        asked_for.append(batch)
        files = [np.fromfile(folder / path, dtype=np.uint8) for path, _ in batch]
        yield files, np.array([[label] for _, label in batch], dtype=np.int64)


def _reason(error: RuntimeError, paths: Iterable[Path]) -> str:
    for path in paths:
        try:
            read_image(path)
        except ImageError as broken:
            return f"{broken}. --loader torchvision with --skip-broken leaves it out"
    return f"DALI has failed: {str(error).strip()}"
