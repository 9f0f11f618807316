"""The data sets by name.

A new data set is one module that ends in `register(Source(...))` and is imported at the end of
this one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from platformdirs import user_cache_path

from afi_search.data.dataset import Dataset, ImageSet
from afi_search.data.errors import UnknownDataset
from afi_search.data.scaling import scaled
from afi_search.errors import did_you_mean

FOLDER_VARIABLE = "AFI_SEARCH_DATA"


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and what is known of it before it is read.

    Attributes:
        name, num_classes, image_size, mean, std, mirror_safe, validation: as in `Dataset`.
        train_images: in its training set, the ones to hold out included.
        prepare: given the folder and whether it may download, makes sure that every file is
            there and whole; raises DataUnavailable or DataCorrupt.
        read: given the folder, returns the training and the test images; trusts the files.
        class_names: in the order of the labels, where the classes have names.
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirror_safe: bool
    train_images: int
    validation: int
    prepare: Callable[[Path, bool], None]
    read: Callable[[Path], tuple[ImageSet, ImageSet]]
    class_names: tuple[str, ...] = ()

    def class_name(self, label: int) -> str:
        """Return what a class is called: its number where the source has no names."""
        return self.class_names[label] if self.class_names else str(label)

    def at(self, image_size: int | None) -> Source:
        """Return the same data set with its images scaled to that size; None: as they are.

        `mean` and `std` stay those of the images in their own size.
        """
        if image_size in (None, self.image_size):
            return self

        def read(folder: Path) -> tuple[ImageSet, ImageSet]:
            train, test = self.read(folder)
            return scaled(train, image_size), scaled(test, image_size)

        return replace(self, image_size=image_size, read=read)


_SOURCES: dict[str, Source] = {}


def register(source: Source) -> Source:
    """Make `source` known by its name."""
    _SOURCES[source.name] = source
    return source


def dataset_names() -> list[str]:
    """Return every name that `load` knows, sorted."""
    return sorted(_SOURCES)


def get_source(name: str) -> Source:
    """Return the data set's facts (classes, image size, ...) without reading it.

    Raises:
        UnknownDataset: no data set has this name.
    """
    try:
        return _SOURCES[name]
    except KeyError:
        known = ", ".join(dataset_names())
        hint = did_you_mean(name, dataset_names())
        raise UnknownDataset(f"no data set is called {name!r}.{hint} Known: {known}.") from None


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
    source = get_source(name)
    path = data_folder(folder)
    source.prepare(path, download)
    return path


def read(name: str, folder: str | Path | None = None, *, image_size: int | None = None) -> Dataset:
    """Read a data set that `locate` has checked; never downloads.

    Args:
        name: of the data set.
        folder: of all data sets, see `data_folder`.
        image_size: height and width that every image is scaled to; the data set's own otherwise.

    Raises:
        UnknownDataset: no data set has this name.
        DataUnavailable: a file is missing.
        DataCorrupt: a file cannot be read.
    """
    source = get_source(name).at(image_size)
    train, test = source.read(data_folder(folder))
    return Dataset(
        name=source.name,
        num_classes=source.num_classes,
        image_size=source.image_size,
        mean=source.mean,
        std=source.std,
        mirror_safe=source.mirror_safe,
        validation=source.validation,
        train=train,
        test=test,
    )


def load(name: str, folder: str | Path | None = None, *, download: bool = True) -> Dataset:
    """Locate a data set, then read it; raises what `locate` and `read` raise."""
    return read(name, locate(name, folder, download=download))


for _module in ("cifar", "digits"):
    import_module(f"afi_search.data.{_module}")
