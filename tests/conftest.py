"""What tests of several parts share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from afi_search import data
from afi_search.registry import DATASETS, PRUNERS, SAMPLERS, import_modules
from afi_search.space.attention import ATTENTIONS
from afi_search.space.backbone import BACKBONES
from afi_search.space.objective import OBJECTIVES
from tests.pictures import bucket, imagenette, pictures  # noqa: F401

THIRD_PARTY = Path(__file__).parent / "third_party"
STRICT = str(Path(__file__).parent / "strict")
sys.path.insert(0, STRICT)  # of which processes that tests start make their PYTHONPATH
os.environ.pop("COLUMNS", None)  # a console that is made with it keeps to it, whatever a test sets
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (STRICT, os.environ.get("PYTHONPATH"))))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by a shell's &, and so in what tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
def third_party(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's modules; what they register is forgotten after the test."""
    for registry in (BACKBONES, ATTENTIONS, DATASETS, OBJECTIVES, SAMPLERS, PRUNERS):
        entries = {name: registry.get(name) for name in registry.names}
        monkeypatch.setattr(registry, "_entries", entries)
    for module in ("everything", "gate", "joules", "mine", "shades", "toynet"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return THIRD_PARTY


@pytest.fixture
def toynet(third_party: Path) -> None:
    """A user's backbone, registered for one test."""
    import_modules(["toynet"], third_party)
