"""What tests of benchmarks share."""

from __future__ import annotations

import pytest

from afi_search.space.backbone import BACKBONES


@pytest.fixture(autouse=True)
def forget_made_up_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave other tests the backbones that can be built."""
    entries = {name: BACKBONES.get(name) for name in BACKBONES.names}
    monkeypatch.setattr(BACKBONES, "_entries", entries)
