"""Data sets by name: what is known of one, where it lies, and its images as tensors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from platformdirs import user_cache_path

from afi_search.errors import UserError
from afi_search.registry import DATASETS
from afi_search.space.schema import Data

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Attributes:
        images: N x H x W x 3, uint8.
        labels: N, int64, from 0.

    >>> import torch
    >>> black = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    >>> ImageSet(black, torch.tensor([0, 1])).scaled(16).images.shape
    torch.Size([2, 16, 16, 3])
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it as arrays, which Ray keeps once a node for all workers, to be read only."""
        return _of_arrays, (self.images.cpu().numpy(), self.labels.cpu().numpy())

    def select(self, indices: Tensor) -> ImageSet:
        """Return the images at `indices` (int64), in their order."""
        return ImageSet(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> ImageSet:
        """Return the set on `device`."""
        return ImageSet(self.images.to(device), self.labels.to(device))

    def scaled(self, size: int) -> ImageSet:
        """Return the images scaled to N x size x size x 3 by Pillow's box filter.

        A pixel is the mean of the pixels in its place, along rows and then along columns, each
        rounded, as Chrabaszcz et al. (2017, arXiv:1707.08819) and NAS-Bench-201 made ImageNet16.
        """
        import numpy as np
        import torch
        from PIL import Image

        scaled = np.empty((len(self), size, size, 3), dtype=np.uint8)
        for index, pixels in enumerate(self.images.numpy()):
            image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX)
            scaled[index] = np.asarray(image)
        return ImageSet(torch.from_numpy(scaled), self.labels)


def _of_arrays(*arrays: Any) -> ImageSet:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return ImageSet(*map(torch.from_numpy, arrays))


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before it is read.

    Attributes:
        name: in space files.
        num_classes: labels are 0 .. num_classes - 1.
        image_size: height and width, pixels.
        mean, std: of each channel of the training images, on a scale of 0 to 1.
        mirror_safe: whether a mirrored image keeps its label; only then a recipe's `flip` applies.
        train_images: number of training images, the validation images included.
        validation: training images that `split` holds out by default.
        class_names: in the order of the labels, where the classes have names.

    >>> grey = (0.5, 0.5, 0.5)
    >>> shades = DatasetSpec("shades", 2, 32, grey, grey, True, 64, 8, ("dark", "bright"))
    >>> shades.class_name(1), shades.at(16).image_size
    ('bright', 16)
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirror_safe: bool
    train_images: int
    validation: int
    class_names: tuple[str, ...] = ()

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number where the classes have no names."""
        return self.class_names[label] if self.class_names else str(label)

    def at(self, image_size: int | None) -> DatasetSpec:
        """Return the spec of the images scaled to that size; `mean` and `std` stay the same."""
        if image_size is None or image_size == self.image_size:
            return self
        return replace(self, image_size=image_size)


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    The training images include those to hold out; the test images are read once, for confirmed
    architectures.

    >>> digits = load("digits")
    >>> digits.spec.num_classes, len(digits.train), len(digits.test)
    (10, 1437, 360)
    """

    spec: DatasetSpec
    train: ImageSet
    test: ImageSet


@dataclass(frozen=True)
class Split:
    """The images a trial uses: to train on, and those held out of the training images.

    `padding` black pixels surround the images to train on already, on each side.

    >>> digits = load("digits")
    >>> Split(digits.spec, train=digits.train, validation=digits.test).padding
    0
    """

    spec: DatasetSpec
    train: ImageSet
    validation: ImageSet
    padding: int = 0


Read = Callable[[Path], tuple[ImageSet, ImageSet]]
Prepare = Callable[[Path, bool], None]


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

    A whole module is docs/examples/shades.py, beside a space file that has `imports: [shades]` and
    `data: {name: shades}`:

    ```python
    def read(folder):
        arrays = np.load(folder / "mine.npz")  # images: N x 32 x 32 x 3, uint8; labels: N, int64
        ...
        return ImageSet(images, labels), ImageSet(test_images, test_labels)

    afi_search.register_dataset(afi_search.DatasetSpec("mine", num_classes=7, ...), read)
    ```

    Args:
        spec: its facts.
        read: given the folder of all data sets, returns the training and the test images; it may
            trust the files.
        prepare: given the folder and whether it may download, makes sure that the files are there
            and whole, or raises DataUnavailable or DataCorrupt; None: there are none.

    Raises:
        ValueError: another data set has that name.

    >>> digits = load("digits")
    >>> register_dataset(
    ...     replace(digits.spec, name="swapped"), lambda folder: (digits.test, digits.train)
    ... )
    >>> len(load("swapped").train) == len(digits.test)
    True
    """
    DATASETS.register(spec.name, _Registered(spec, read, prepare))


def dataset_spec(name: str) -> DatasetSpec:
    """Return a data set's facts without reading it; UnknownName where there is none.

    >>> dataset_spec("cifar100").num_classes
    100
    """
    spec: DatasetSpec = DATASETS.get(name).spec
    return spec


def spec_of(data: Data) -> DatasetSpec:
    """Return the facts of a space file's data set, its images in the configured size.

    >>> spec_of(Data(name="digits", image_size=16)).image_size
    16
    """
    return dataset_spec(data.name).at(data.image_size)


def data_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of all data sets: `folder`, else AFI_SEARCH_DATA, else the user's cache.

    >>> data_folder("/data")
    PosixPath('/data')
    """
    if folder is None:
        folder = os.environ.get("AFI_SEARCH_DATA") or user_cache_path("afi_search") / "data"
    return Path(folder).expanduser().absolute()


def locate(name: str, folder: str | Path | None = None, *, download: bool = True) -> Path:
    """Make sure that a data set is on disk and whole, and return the folder to read it from.

    One process calls this, before those that read; what is missing is downloaded into the folder.

    Raises:
        UnknownName: no data set has this name.
        DataUnavailable: a file is missing and cannot be downloaded.
        DataCorrupt: a file is there and is not the right one.

    >>> locate("digits", "/data")
    PosixPath('/data')
    """
    path = data_folder(folder)
    if (prepare := DATASETS.get(name).prepare) is not None:
        prepare(path, download)
    return path


def read_data(data: Data, folder: str | Path | None = None) -> Dataset:
    """Read a space file's data set, which `locate` has checked; never downloads.

    Raises:
        DataUnavailable, DataCorrupt: a file is missing, or cannot be read.

    >>> read_data(Data(name="digits", image_size=16)).test.images.shape
    torch.Size([360, 16, 16, 3])
    """
    known: _Registered = DATASETS.get(data.name)
    spec = known.spec.at(data.image_size)
    train, test = known.read(data_folder(folder or data.folder))
    if spec != known.spec:
        train, test = train.scaled(spec.image_size), test.scaled(spec.image_size)
    return Dataset(spec, train, test)


def load(name: str, folder: str | Path | None = None, *, download: bool = True) -> Dataset:
    """Locate a data set, then read it; raises what `locate` and `read_data` raise.

    >>> load("digits").train.images.shape
    torch.Size([1437, 32, 32, 3])
    """
    path = locate(name, folder, download=download)
    return read_data(Data(name=name), path)
