"""A data set's name -> tensors: reading, checking, downloading, splitting."""

from afi_search.data.dataset import DataCorrupt as DataCorrupt
from afi_search.data.dataset import Dataset as Dataset
from afi_search.data.dataset import DatasetSpec as DatasetSpec
from afi_search.data.dataset import DataUnavailable as DataUnavailable
from afi_search.data.dataset import ImageSet as ImageSet
from afi_search.data.dataset import Split as Split
from afi_search.data.dataset import data_folder as data_folder
from afi_search.data.dataset import dataset_spec as dataset_spec
from afi_search.data.dataset import load as load
from afi_search.data.dataset import locate as locate
from afi_search.data.dataset import read_data as read_data
from afi_search.data.dataset import register_dataset as register_dataset
from afi_search.data.dataset import spec_of as spec_of
from afi_search.data.splits import split as split
from afi_search.data.splits import split_of as split_of
from afi_search.data.splits import trained_images as trained_images
