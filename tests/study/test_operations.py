"""Lines of a ledger that are JSON of the wrong kind: refused with their number, or harmless."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch

from afi_search.errors import UserError
from afi_search.report.view import StudyView
from afi_search.search.explain import explain
from afi_search.study import Ledger
from afi_search.study.journal import DamagedLedger
from afi_search.study.operations import read_operation
from afi_search.study.repair import repair
from afi_search.study.study import Study
from afi_search.train import load
from afi_search.train.checkpoint import FORMAT
from tests.study.test_damage import searched

WRONG: tuple[Any, ...] = (None, True, -1, 1.5, 10**30, "x", {"x": 1})


def paths(line: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in line.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from paths(value, (*above, name))


def put(whole: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Put a value at the end of a path; return the whole."""
    part = whole
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    return whole


def changed(line: bytes, path: tuple[str, ...], value: Any) -> bytes:
    return json.dumps(put(json.loads(line), path, value)).encode()


@pytest.mark.parametrize("each", [3, pytest.param(7, marks=pytest.mark.slow)])
def test_no_field_of_any_line_breaks_a_reader(tmp_path: Path, each: int) -> None:
    """Each field takes some of the wrong values in turn, or all of them."""
    searched(tmp_path, trials=2)
    info = Study.open(tmp_path).info
    ledger = tmp_path / "ledger.log"
    lines = ledger.read_bytes().splitlines()
    kinds: dict[tuple[Any, ...], int] = {}
    for at, line in enumerate(lines):
        told = json.loads(line)
        notes = told.get("user_attr", told.get("system_attr", {}))
        kinds.setdefault((told["op_code"], *notes), at)
    refused, read, values = 0, 0, cycle(WRONG)
    for at in kinds.values():
        for path in paths(json.loads(lines[at])):
            for value in islice(values, each):
                other = changed(lines[at], path, value)
                ledger.write_bytes(b"\n".join([*lines[:at], other, *lines[at + 1 :]]) + b"\n")
                try:
                    records = Ledger.open(tmp_path).records()
                except UserError:
                    refused += 1
                else:
                    read += 1
                    _ = StudyView(records, info).front
                with suppress(UserError):
                    list(explain(Ledger.find_in(tmp_path, 0)))
    assert refused > 28 * each and read > 4 * each


@pytest.mark.parametrize(
    ("begins", "path", "value", "why"),
    [
        (b'{"op_code":4', ("state",), True, "has no state that"),
        (b'{"op_code":4', ("state",), 1, "completes a trial with"),
        (b'{"op_code":4', ("user_attrs", "architecture"), "x", "has no architecture that"),
        (b'{"op_code":4', ("user_attrs", "epochs"), 10**9, "has no epochs that"),
        (b'{"op_code":6', ("values",), [0.5], "completes a trial with .* for 2 objectives"),
        (
            b'{"op_code":4',
            ("system_attrs",),
            {"NSGAIISampler:generation": 1.5},
            "has no NSGAIISampler:generation",
        ),
        (b'{"op_code":7', ("intermediate_value",), 1.5, "has no intermediate_value that"),
        (b'{"op_code":7', ("step",), 10**12, "has no step that"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, begins: bytes, path: tuple[str, ...], value: Any, why: str
) -> None:
    searched(tmp_path, trials=1)
    ledger = tmp_path / "ledger.log"
    lines = ledger.read_bytes().splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith(begins))
    lines[at] = changed(lines[at], path, value)
    ledger.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DamagedLedger, match=f"ledger.log:{at + 1}: {why}"):
        Ledger.open(tmp_path)


def test_bytes_of_paths_and_what_others_note_are_read_as_they_were_written() -> None:
    note = {"reason": "caf\udce9", "theirs": {"x": [1]}}
    line = {"op_code": 8, "worker_id": "w", "trial_id": 0, "user_attr": note}
    assert read_operation(json.dumps(line).encode()) == line


def test_a_line_that_begins_another_study_breaks_no_reader(tmp_path: Path) -> None:
    searched(tmp_path, trials=2)
    before = Ledger.open(tmp_path).records()
    first, *others = (tmp_path / "ledger.log").read_bytes().splitlines(keepends=True)
    another = changed(first, ("study_name",), "another") + b"\n"
    (tmp_path / "ledger.log").write_bytes(b"".join([first, another, *others]))

    assert Ledger.open(tmp_path).records().equals(before)


def test_whatever_a_checkpoint_says_repair_ends_in_a_ledger_that_can_be_read(
    tmp_path: Path,
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "study"
    searched(whole, trials=2)
    state = load(Study.open(whole).trial_checkpoints(1))
    assert state is not None
    told = {**state, "history": dict(enumerate(state["history"][:1]))}
    wrong: tuple[Any, ...] = (None, 10**30, [], "mobilenetv2")
    for at in paths(told):
        for value in wrong:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder)
            (folder / "ledger.log").unlink()
            other = put(copy.deepcopy(state), at, value)
            (path,) = (folder / "checkpoints" / "00001").iterdir()
            torch.save({"format": FORMAT, **other}, path)
            assert list(repair(folder)), (at, value)
            assert len(Ledger.open(folder).records()) == 2
