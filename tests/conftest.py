"""What tests of several parts share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from afi_search import data


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep results the same on every machine, and tests beside each other fast."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cifar100_folder() -> Path:
    """The folder that holds cifar-100-python; skips the test where there is none."""
    folder = os.environ.get("AFI_SEARCH_DATA")
    if not folder:
        pytest.skip("needs CIFAR-100: AFI_SEARCH_DATA is not set")
    if not (Path(folder) / "cifar-100-python").is_dir():
        pytest.skip(f"needs CIFAR-100: AFI_SEARCH_DATA={folder} has no folder cifar-100-python")
    return Path(folder)


@pytest.fixture(scope="session")
def cifar100(cifar100_folder: Path) -> data.Dataset:
    """The real CIFAR-100."""
    return data.load("cifar100", cifar100_folder, download=False)


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    """The data set that is always there."""
    return data.load("digits")
