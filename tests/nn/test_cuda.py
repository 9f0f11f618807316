"""Triton's kernels: compiled and interpreted where there is no GPU, run where there is one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import torch

from afi_search.nn.ops import common
from tests.nn.on_device import compare, compare_batch_norm

ROOT = Path(__file__).parents[2]
NETWORKS = [
    "resnet20(base-r4)",
    "resnet32(B-r16-shared)",
    "resnext29(B-r8-se-shared, base-r4, off)",
    "shufflenetv2(base-r4-shared)",
    "mobilenetv2(base-r16-eca)",
    "resnet50(base-r4)",
]
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU runs them")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def run(module: str, *arguments: str, **variables: str) -> str:
    """Run a program of the tests, which must end well; return what it prints."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@without_gpu
@pytest.mark.parametrize("text", ["resnet20(base-r4)", "resnet20(B-r8-se-shared)"])
def test_interpreted_kernels_compute_what_plain_torch_does(text):
    pytest.importorskip("triton")

    run("tests.nn.interpreted", *(f"{text}/{p}" for p in ("fp64", "bf16")), TRITON_INTERPRET="1")


@without_gpu
@pytest.mark.slow
@pytest.mark.parametrize("text", [*NETWORKS, "resnet110(base-r4)"])
def test_interpreted_kernels_compute_every_family(text):
    pytest.importorskip("triton")

    run("tests.nn.interpreted", f"{text}/fp64", f"{text}/fp32", TRITON_INTERPRET="1")


@without_gpu
@pytest.mark.parametrize(
    "blocks, most, capabilities",
    [
        pytest.param(5, 35, ("80", "90", "100"), id="resnet32"),
        pytest.param(18, 58, ("90",), id="resnet110", marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_in_few_variants_for_the_gpus_that_people_have(blocks, most, capabilities):
    pytest.importorskip("triton")

    run("tests.nn.compiled", str(blocks), str(most), *capabilities)


@without_gpu
@pytest.mark.slow
def test_of_processes_that_begin_together_one_compiles_the_kernels(tmp_path):
    pytest.importorskip("triton")
    caches = {"TRITON_CACHE_DIR": str(tmp_path / "triton"), "XDG_CACHE_HOME": str(tmp_path)}

    with ThreadPoolExecutor() as pool:
        started = [pool.submit(run, "tests.nn.compiled", "2", "35", "90", **caches) for _ in "ab"]
    waited, compiled = sorted(int(of.result()) for of in started)

    assert waited == 0
    assert compiled > 10


def test_where_triton_cannot_run_one_warning_says_so(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "ones", fail)
    common._triton.cache_clear()
    with pytest.warns(UserWarning, match="needs gcc .*Failed to find C compiler") as told:
        assert common.kernels("cuda") is None
        assert common.kernels("cuda") is None

    assert len(told) == 1
    common._triton.cache_clear()


ONCE_EACH = list(zip(NETWORKS, ["bf16", "fp32", "fp32", "bf16", "fp64", "bf16"], strict=True))
REST = sorted(set(product(NETWORKS, ["fp64", "fp32", "bf16"])) - set(ONCE_EACH))


@on_gpu
@pytest.mark.parametrize(
    "text, precision",
    [*ONCE_EACH, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in REST)],
)
def test_on_a_gpu_networks_compute_what_plain_torch_does(text, precision):
    compare(text, precision, "cuda")


@on_gpu
@pytest.mark.parametrize("ceiling, with_skip", [(None, False), (math.inf, False), (6.0, True)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "shape", [(512, 16, 32, 32), (512, 8, 32, 32), (256, 58, 16, 16), (64, 2048, 7, 7)]
)
def test_on_a_gpu_batch_norm_of_many_programs_is_exact_and_the_same_each_time(
    shape, dtype, ceiling, with_skip
):
    compare_batch_norm(shape, dtype, ceiling, with_skip, "cuda", times=20)
