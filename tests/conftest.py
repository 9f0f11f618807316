"""What tests of several parts share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from afi_search import data
from afi_search.space import backbone_names, get_backbone
from afi_search.space.schema import import_modules
from tests.pictures import bucket, imagenette, pictures  # noqa: F401

THIRD_PARTY = Path(__file__).parent / "third_party"


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


@pytest.fixture
def toynet(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A third party's backbone, registered for one test; the folder that its module lies in."""
    registry = {name: get_backbone(name) for name in backbone_names()}
    monkeypatch.setattr("afi_search.space.backbone._BACKBONES", registry)
    monkeypatch.syspath_prepend(THIRD_PARTY)
    monkeypatch.delitem(sys.modules, "toynet", raising=False)
    import_modules(["toynet"])
    return THIRD_PARTY
