"""A data set's name -> tensors: reading, checking, downloading, splitting."""

from afi_search.data.configured import read_data, source_of, split_of
from afi_search.data.dataset import Dataset, ImageSet
from afi_search.data.errors import DataCorrupt, DataUnavailable, UnknownDataset
from afi_search.data.registry import (
    Source,
    data_folder,
    dataset_names,
    get_source,
    load,
    locate,
    read,
    register,
)
from afi_search.data.scaling import scaled
from afi_search.data.splits import Split, SplitError, split, trained_images

__all__ = [
    "DataCorrupt",
    "DataUnavailable",
    "Dataset",
    "ImageSet",
    "Source",
    "Split",
    "SplitError",
    "UnknownDataset",
    "data_folder",
    "dataset_names",
    "get_source",
    "load",
    "locate",
    "read",
    "read_data",
    "register",
    "scaled",
    "source_of",
    "split",
    "split_of",
    "trained_images",
]
