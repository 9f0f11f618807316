from __future__ import annotations

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from threading import Barrier

import pandas as pd
import pytest

from afi_search.files import csv_of, write_once, write_whole


def test_a_refusal_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    if os.getuid() or not shutil.which("mount"):
        pytest.skip("needs root and mount, to make a read-only disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path]).returncode:
        pytest.skip("cannot mount a read-only disk here")
    try:
        with pytest.raises(OSError, match="Read-only") as error:
            write_whole(tmp_path / "front.csv", "x")
        assert error.value.filename == str(tmp_path / "front.csv")
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "-1+cmd|' /C calc'!A0"])
def test_no_text_in_a_table_is_a_formula(text: str) -> None:
    table = pd.DataFrame({"text": [text, "plain", None], "x": [-1.5, 2, 3]})
    assert pd.read_csv(StringIO(csv_of(table)))["text"].tolist()[:2] == [f"'{text}", "plain"]


def test_no_text_in_a_table_is_a_command_for_a_terminal() -> None:
    table = pd.DataFrame({"text \x1b[2J": ["\x1b[2J", "two\nlines"]})
    assert csv_of(table) == 'text \\x1b[2J\n\\x1b[2J\n"two\nlines"\n'


def test_numbers_stay_numbers() -> None:
    table = pd.DataFrame({"x": [-1.5, 2.0], "as text": ["-0.3", "+1e-3"]})
    assert csv_of(table) == "x,as text\n-1.5,-0.3\n2.0,+1e-3\n"


def test_what_was_decided_holds(tmp_path):
    file = tmp_path / "folder" / "choice"

    assert write_once(str(file), lambda: "bf16") == "bf16"
    assert write_once(str(file), lambda: "fp32") == "bf16"
    assert [path.name for path in file.parent.iterdir()] == ["choice"]


def test_who_decides_at_the_same_time_gets_the_same(tmp_path):
    together = Barrier(8)

    def decide(number: int) -> str:
        return write_once(str(tmp_path / "choice"), lambda: f"{together.wait()} {number}")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(decide, range(8)))) == 1


def test_it_may_be_on_an_object_store():
    url = "memory://study/checkpoints/choice"
    assert write_once(url, lambda: "bf16") == write_once(url, lambda: "fp32") == "bf16"


def test_a_path_that_is_no_utf_8_can_be_told_in_a_file(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "facts.json", '["caf\udce9"]')
    assert json.loads(path.read_text()) == [os.fsdecode(b"caf\xe9")]
