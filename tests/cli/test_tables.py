from __future__ import annotations

import pytest

from afi_search.cli.common import console


def test_at_80_columns_headings_give_way_before_names_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ["studies/resnet20-digits-1", "studies/resnet20-digits-2"]
    figures = {f"long heading {n}": 12 for n in range(4)}
    console.table_of([{"study": name, "state": "complete", **figures} for name in names], False)
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f" {name} ") for line in lines) for name in names)
    assert max(map(len, lines)) <= 80
