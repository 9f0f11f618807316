"""What can be wrong with a data set."""

from __future__ import annotations

from afi_search.errors import UserError


class UnknownDataset(UserError):
    """No data set has this name."""


class DataUnavailable(UserError):
    """The data set is neither on disk nor to be downloaded."""


class DataCorrupt(UserError):
    """A file of the data set is cut short, damaged, or not what its name says."""
