from __future__ import annotations

import sys
from pathlib import Path

import pytest

from afi_search.errors import UserError
from afi_search.model.from_checkpoint import read_checkpoint
from afi_search.model.model import ModelError
from afi_search.promote.promotion import promote_study
from afi_search.train import load, save


def test_a_url_that_cannot_hold_checkpoints_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="s4://bucket/folder"):
        promote_study(
            tmp_path, ["resnet50"], data="/there/is/none", checkpoints="s4://bucket/folder"
        )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s4://bucket/folder", "s4://bucket/folder: cannot be read: Protocol not known: s4"),
        ("s3://bucket/folder", "s3://bucket/folder: cannot be read: Install s3fs"),
    ],
)
def test_a_checkpoint_at_a_url_that_cannot_be_read_is_named(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ModelError, match=message):
        read_checkpoint(url)


def test_checkpoints_in_s3(bucket: str) -> None:
    url = f"s3://{bucket}/promotions/p"
    assert load(url) is None
    for epoch in (1, 2, 3):
        save({"epoch": epoch}, url)
    assert load(url) == {"epoch": 3}
