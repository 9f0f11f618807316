from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from afi_search.files import write_once


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
