"""The data sets by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_cache_path

from afi_search.data.dataset import Dataset, DatasetSpec, ImageSet
from afi_search.errors import UserError
from afi_search.registry import DATASETS
from afi_search.space.schema import Data

FOLDER_VARIABLE = "AFI_SEARCH_DATA"

Read = Callable[[Path], tuple[ImageSet, ImageSet]]
"""Given the folder, returns the training and the test images; trusts the files."""

Prepare = Callable[[Path, bool], None]
"""Given the folder and whether it may download, makes sure that every file is there and whole;
raises DataUnavailable or DataCorrupt."""


class DataUnavailable(UserError):
    """The data set is neither on disk nor to be downloaded."""


class DataCorrupt(UserError):
    """A file of the data set is cut short, damaged, or not what its name says."""


class _Registered(NamedTuple):
    spec: DatasetSpec
    read: Read
    prepare: Prepare | None


def register_dataset(spec: DatasetSpec, read: Read, prepare: Prepare | None = None) -> None:
    """Make a data set known by its name.

    Args:
        spec: its facts.
        read: given the folder of all data sets, returns the training and the test images.
        prepare: given the folder and whether it may download, makes sure that the files are there;
            None: there are none.

    Raises:
        ValueError: another data set has that name.

    Example:
        In `mine.py` beside a space file that has `imports: [mine]` and `data: {name: mine}`:

        ```python
        import afi_search
        import numpy as np
        import torch
        from afi_search.data import DatasetSpec, ImageSet

        def read(folder):
            arrays = np.load(folder / "mine.npz")  # images: N x 32 x 32 x 3, uint8; labels: N
            train, test = (
                ImageSet(torch.from_numpy(arrays[f"{part}_images"]),
                         torch.from_numpy(arrays[f"{part}_labels"]))
                for part in ("train", "test")
            )
            return train, test

        afi_search.register_dataset(
            DatasetSpec(
                name="mine", num_classes=7, image_size=32, mean=(0.5, 0.5, 0.5),
                std=(0.25, 0.25, 0.25), mirror_safe=True, train_images=9000, validation=900,
            ),
            read,
        )
        ```
    """
    DATASETS.register(spec.name, _Registered(spec, read, prepare))


def dataset_spec(name: str) -> DatasetSpec:
    """Return a data set's facts (classes, image size, ...) without reading it.

    Raises:
        UnknownDataset: no data set has this name.

    >>> dataset_spec("cifar100").num_classes
    100
    """
    return _registered(name).spec


def spec_of(data: Data) -> DatasetSpec:
    """Return the facts of a space file's data set, its images in the configured size.

    Raises:
        UnknownDataset: no data set has the name.
    """
    return dataset_spec(data.name).at(data.image_size)


def data_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of all data sets: `folder`, else AFI_SEARCH_DATA, else the user's cache."""
    if folder is None:
        folder = os.environ.get(FOLDER_VARIABLE) or user_cache_path("afi_search") / "data"
    return Path(folder).expanduser().absolute()


def locate(name: str, folder: str | Path | None = None, *, download: bool = True) -> Path:
    """Make sure that a data set is on disk and whole, and return the folder to `read` it from.

    One process calls this, before the ones that `read`: it checks every file by its MD5 and
    downloads what is missing into the folder.

    Raises:
        UnknownDataset: no data set has this name.
        DataUnavailable: a file is missing and cannot be downloaded.
        DataCorrupt: a file is there and is not the right one.
    """
    prepare = _registered(name).prepare
    path = data_folder(folder)
    if prepare is not None:
        prepare(path, download)
    return path


def read(name: str, folder: str | Path | None = None, *, image_size: int | None = None) -> Dataset:
    """Read a data set that `locate` has checked; never downloads.

    Args:
        name: of the data set.
        folder: of all data sets, see `data_folder`.
        image_size: height and width that every image is scaled to; None: the data set's own.

    Raises:
        UnknownDataset: no data set has this name.
        DataUnavailable: a file is missing.
        DataCorrupt: a file cannot be read.
    """
    known = _registered(name)
    spec = known.spec.at(image_size)
    images = known.read(data_folder(folder))
    if spec != known.spec:
        images = (images[0].scaled(spec.image_size), images[1].scaled(spec.image_size))
    return Dataset(spec, *images)


def read_data(data: Data, folder: str | Path | None = None) -> Dataset:
    """Read a space file's data set, which `locate` has checked; raises as `read` does.

    Args:
        data: the `data` section of the space file.
        folder: of all data sets; None: the configured one, else as in `data_folder`.
    """
    return read(data.name, folder or data.folder, image_size=data.image_size)


def load(name: str, folder: str | Path | None = None, *, download: bool = True) -> Dataset:
    """Locate a data set, then read it; raises what `locate` and `read` raise."""
    return read(name, locate(name, folder, download=download))


def _registered(name: str) -> _Registered:
    registered: _Registered = DATASETS.get(name)
    return registered
