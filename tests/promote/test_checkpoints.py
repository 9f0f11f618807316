from __future__ import annotations

import sys
from pathlib import Path

import pytest

from afi_search.errors import UserError
from afi_search.promote.checkpoints import Unreachable, demand_writable, reachable
from afi_search.train import load, save


def test_a_folder_that_is_not_there_is_made_and_nothing_stays_in_it(tmp_path: Path) -> None:
    demand_writable(str(tmp_path / "a" / "b"))
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s4://bucket/folder", "s4://bucket/folder: .* Protocol not known: s4"),
        ("/dev/null/folder", "/dev/null/folder: cannot be read or written"),
    ],
)
def test_what_cannot_be_written_is_named(url: str, message: str) -> None:
    with pytest.raises(Unreachable, match=message):
        demand_writable(url)


def test_what_has_to_be_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(Unreachable, match=r"pip install 'afi-search\[s3\]'"):
        demand_writable("s3://bucket/folder")


def test_a_persons_other_mistakes_stay_what_they_are() -> None:
    with pytest.raises(UserError, match=r"^mine$"), reachable("anywhere"):
        raise UserError("mine")


def test_checkpoints_in_s3(bucket: str) -> None:
    url = f"s3://{bucket}/promotions/p"
    demand_writable(url)
    assert load(url) is None
    for epoch in (1, 2, 3):
        save({"epoch": epoch}, url)
    assert load(url) == {"epoch": 3}
