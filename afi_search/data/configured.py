"""What the `data` of a space file stands for: a data set, its facts and its split."""

from __future__ import annotations

from pathlib import Path

from afi_search.data.dataset import Dataset
from afi_search.data.registry import Source, get_source, read
from afi_search.data.splits import Split, split
from afi_search.space.schema import Data


def source_of(data: Data) -> Source:
    """Return the facts of the data set, its images in the configured size, without reading it.

    Raises:
        UnknownDataset: no data set has the name.
    """
    return get_source(data.name).at(data.image_size)


def read_data(data: Data, folder: str | Path | None = None) -> Dataset:
    """Read the data set, which `locate` has checked, from `folder` or the configured one.

    Raises:
        UnknownDataset, DataUnavailable, DataCorrupt: as `read` does.
    """
    return read(data.name, folder or data.folder, image_size=data.image_size)


def split_of(data: Data, images: Dataset) -> Split:
    """Return what a trial sees of the data set.

    Raises:
        SplitError: as `split` does.
    """
    return split(
        images,
        validation=data.validation,
        train_subset=data.train_subset,
        validation_subset=data.validation_subset,
    )
