"""A data set's name -> tensors: reading, checking, downloading, splitting."""

from afi_search.data.dataset import (
    DataCorrupt,
    Dataset,
    DatasetSpec,
    DataUnavailable,
    ImageSet,
    Split,
    data_folder,
    dataset_spec,
    load,
    locate,
    read_data,
    register_dataset,
    spec_of,
)
from afi_search.data.splits import split, split_of, trained_images

__all__ = [
    "DataCorrupt",
    "DataUnavailable",
    "Dataset",
    "DatasetSpec",
    "ImageSet",
    "Split",
    "data_folder",
    "dataset_spec",
    "load",
    "locate",
    "read_data",
    "register_dataset",
    "spec_of",
    "split",
    "split_of",
    "trained_images",
]
