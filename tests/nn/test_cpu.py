"""The native library: made once by the machine's compiler, and done without where there is none."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from afi_search.nn.ops import cpu
from afi_search.nn.ops.common import accelerates, in_rows, plain
from afi_search.nn.ops.gathered import weighted_sum

ROOT = Path(__file__).parents[2]
USE_IT = """
import torch
from afi_search.nn.ops import cpu
from afi_search.nn.ops.common import accelerates
from afi_search.nn import build
x = torch.ones(1, 3, 32, 32).to(memory_format=torch.channels_last)
build("resnet20(base-r4)", num_classes=10, image_size=32)(x)
print(cpu.library() is not None, accelerates(x, "join"))
"""


def run(cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cache), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", USE_IT],
        env={**environment, "XDG_CACHE_HOME": str(cache), **variables},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture(autouse=True)
def compiler() -> None:
    if cpu.library() is None:
        pytest.skip("needs a C++ compiler")


def test_processes_that_begin_together_end_up_with_one_library(tmp_path):
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: run(tmp_path), range(3)))

    assert [process.stdout for process in done] == ["True True\n"] * 3
    (library,) = (tmp_path / "afi_search" / "native").iterdir()
    before = library.stat().st_mtime_ns
    assert run(tmp_path).stdout == "True True\n"
    assert library.stat().st_mtime_ns == before


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_one_warning_says_what_helps(compiler, tmp_path):
    process = run(tmp_path, CXX=compiler)

    assert process.stdout == "False False\n"
    assert process.stderr.count("NativeWarning") == 1
    assert f"install g++, or name a compiler in CXX ({compiler}" in process.stderr


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").touch()

    assert run(tmp_path / "file").stdout == "True True\n"


def test_operators_are_for_channels_last():
    x = torch.randn(2, 6, 4, 5, dtype=torch.bfloat16)
    last = x.to(memory_format=torch.channels_last)

    for part, has_kernel in (("join", True), ("weigh", False), ("normalise", False)):
        assert accelerates(last, part) == accelerates(last.float(), part) == has_kernel
    assert accelerates(x[:, :, :1, :1].contiguous(), "join")
    assert not accelerates(x, "join")
    assert not accelerates(last.half(), "join")
    with plain("normalise"):
        assert accelerates(last, "join")
    for parts in ((), ("join",)):
        with plain(*parts):
            assert not accelerates(last, "join")


def test_slices_of_channels_are_taken_as_they_are():
    last = torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last)

    for x in (last, last[:, 2:4], last[1:], last[:, :, :1, :1]):
        assert in_rows(x) is x or x.shape[2:] == (1, 1)
        assert torch.equal(in_rows(x), x)
    for x in (last.contiguous(), last[:, :, :2, :2], last[:, :1].expand(2, 6, 4, 5)):
        assert torch.equal(in_rows(x), x) and in_rows(x).stride(1) == 1


def test_threads_and_images_divide_as_they_may():
    xs = [torch.randn(5, 9, 7, 3).to(memory_format=torch.channels_last) for _ in range(2)]
    weights = torch.rand(2, 5, 9)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 8):
            torch.set_num_threads(count)
            results.append(weighted_sum(xs[0], xs, list(weights), None, None, None, 0.0))
    finally:
        torch.set_num_threads(threads)

    assert all(torch.equal(result, results[0]) for result in results)
