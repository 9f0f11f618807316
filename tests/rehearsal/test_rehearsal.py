"""The CUDA path on the GPU, and where there is none on a CUDA runtime of our own without one.

`runtime.cpp` takes the place of libcudart: memory is host memory, kernels are noted and not run,
and streams are captured by CUDA's rules (no waiting, no copy from the host, no work on another
stream, no event from outside). `driver.cpp` takes libcuda's place, for Triton; `libraries.cpp` that
of cuBLAS and cuDNN. So the product's own code, PyTorch's CUDA code and Triton's compiler and
launcher run as on an H100, but for what kernels compute. Shows steps that cannot be captured, host
synchronisations, tensors on the wrong device, features laid out anew, memory that trials leave
behind. Cannot show values, cuDNN's choices, races, speed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
LIB = Path(torch.__file__).parent / "lib"
HEADERS = LIB.parents[1] / "triton" / "backends" / "nvidia" / "include"  # all of CUDA's
RUNTIMES = [path.name for path in LIB.parents[1].glob("nvidia/cu*/lib/libcudart.so.*")]

THERE_IS_A_GPU = torch.cuda.is_available()
CAN_BE_REHEARSED = bool(
    RUNTIMES
    and (HEADERS / "cuda_runtime_api.h").exists()
    and re.search(  # Triton 3.6 has those of CUDA 12 beside a PyTorch for CUDA 13
        rf"CUDART_VERSION +{RUNTIMES[0].rpartition('.')[2]}",
        (HEADERS / "cuda_runtime_api.h").read_text(encoding="utf-8"),
    )
    and shutil.which("g++")
    and shutil.which("nm")
    and sys.platform == "linux"
)
pytestmark = pytest.mark.skipif(
    not (THERE_IS_A_GPU or CAN_BE_REHEARSED),
    reason="needs a GPU, or g++, nm and PyTorch for CUDA with headers of its version",
)
rehearsed = pytest.mark.skipif(THERE_IS_A_GPU, reason="is seen by the runtime without a GPU only")

STEPS = [
    ("resnet20", "fp32"),
    ("resnet20(base-r4)", "fp32"),
    ("resnet20(base-r4)", "bf16"),
    ("resnet20(B-r8-se, base-r4-cbam, base-r4-ge-shared)", "bf16"),
    ("resnet20(off, base-r2-eca-shared, B-r16)", "bf16"),
    ("mobilenetv2(base-r4)", "bf16"),
    ("shufflenetv2(base-r4)", "bf16"),
    ("resnext29(B-r8)", "bf16"),
]
if THERE_IS_A_GPU:  # A network's kernels compile for seconds; benchmarks.gpu captures all families.
    STEPS = [STEPS[2], STEPS[3]]
EXTRAS = ["memory", "failing", "promotion", "latency"]
if not THERE_IS_A_GPU:
    EXTRAS += ["kernels", "supernet"]
MOST_KERNELS = 420
"""Of a step of AFI-ResNet-32; cuDNN launched 76 more than one a convolution on an H200."""
Seen = dict[tuple[str, str | None], dict[str, Any]]


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the runtime without a GPU; return its folder."""
    folder = tmp_path_factory.mktemp("cuda")
    for library, names, have in (
        (RUNTIMES[0], r"(?:(?:__)?cuda|cublas|cudnn)", ["runtime.cpp", "libraries.cpp"]),
        ("libcuda.so.1", r"cu[A-Z]", ["driver.cpp"]),
    ):
        sources = [HERE / name for name in have]
        rest = folder / f"rest of {library}.cpp"
        rest.write_text("\n".join([REST, *map(stub, missing(names, sources))]), encoding="utf-8")
        command = ["g++", "-O1", "-w", "-std=c++17", "-fPIC", "-shared", f"-I{HEADERS}"]
        command += [*map(str, [*sources, rest]), "-o", str(folder / library)]
        command += [f"-Wl,-soname,{library}", "-ldl"]
        subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


REST = """
#include <cstdlib>
#define EX extern "C" __attribute__((visibility("default")))
extern "C" int mock_gemm(const char*), mock_dnn(void*, const char*);
"""


def missing(names: str, sources: list[Path]) -> list[str]:
    """Return the functions that PyTorch asks for and the sources do not have."""
    have = "".join(source.read_text(encoding="utf-8") for source in sources)
    wanted = {name for name in ("cuTensorMapEncodeTiled",) if re.match(names, name)}  # Triton's
    for library in LIB.glob("lib*.so"):
        command = ["nm", "-D", "--undefined-only", str(library)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        wanted |= set(re.findall(rf" U ({names}\w*)", listed))
    return sorted(name for name in wanted if not re.search(rf"\b{name}\s*[(\)]", have))


def stub(name: str) -> str:
    """Return a function that does nothing; 801 is cudaErrorNotSupported."""
    if re.match(r"cublas.*([gG]emm|gemv|[dD]ot)", name):
        return f'EX int {name}() {{ return mock_gemm("{name}"); }}'
    if re.match(r"cudnn(Convolution|BatchNormalization|Pooling|RNN)", name):
        return f'EX int {name}(void* h) {{ return mock_dnn(h, "{name}"); }}'
    if re.match(r"cudnn(Backend)?Create\w*Descriptor", name):
        return f"EX int {name}(void** d) {{ *d = calloc(1, 256); return 0; }}"
    return f"EX int {name}() {{ return {0 if re.match('cublas|cudnn', name) else 801}; }}"


def run(folder: Path | None, **wanted: object) -> list[dict[str, Any]]:
    """Run `steps` on the runtime in that folder, or on the GPU; return what it tells."""
    environment = dict(os.environ)
    if folder is not None:
        environment |= {
            "LD_PRELOAD": str(folder / RUNTIMES[0]),
            "LD_LIBRARY_PATH": str(folder),
            "TRITON_LIBCUDA_PATH": str(folder),
            "TRITON_CACHE_DIR": str(folder / "triton"),
            "TORCH_CUDNN_V8_API_DISABLED": "1",
            "MOCK_LOG": str(folder / "log"),
        }
    command = [sys.executable, "-m", "tests.rehearsal.steps", json.dumps(wanted)]
    done = subprocess.run(
        command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="session")
def seen(request: pytest.FixtureRequest) -> Seen:
    folder = None if THERE_IS_A_GPU else request.getfixturevalue("runtime")
    results = run(folder, steps=STEPS, extras=EXTRAS, triton=THERE_IS_A_GPU)
    return {(of["text"], of.get("precision")): of for of in results}


@pytest.mark.parametrize("text, precision", STEPS)
def test_every_step_is_captured(seen: Seen, text: str, precision: str) -> None:
    of = seen[text, precision]

    assert of["warnings"] == []
    assert of["captured"] and of["evaluation"]
    assert of["forbidden"] == 0


@rehearsed
@pytest.mark.parametrize("text, precision", STEPS)
def test_features_keep_their_layout(seen: Seen, text: str, precision: str) -> None:
    assert seen[text, precision]["relaid"] == {}


def test_trials_leave_no_memory_on_the_device(seen: Seen) -> None:
    allocated, reserved = zip(*seen["memory", None]["held"], strict=True)

    assert max(allocated) - allocated[0] < 2**20, allocated
    assert max(reserved) - reserved[0] < 2**22, reserved


def test_a_step_that_cannot_be_captured_leaves_the_process_as_it_was(seen: Seen) -> None:
    of = seen["failing", None]

    assert any("runs eagerly" in told for told in of["warnings"])
    assert of["stayed"], "the process has been left on the capture's stream"
    assert of["next_captured"]


@pytest.mark.parametrize("which", ["paper 1", "modern 1", pytest.param("paper 2", marks=rehearsed)])
def test_a_promotion_s_step_is_captured_and_does_not_wait_for_the_device(
    seen: Seen, which: str
) -> None:
    """By recipe and number of processes."""
    of = seen[f"promotion {which}", None]

    assert of["warnings"] == []
    assert of["captured"]
    assert of["waits"] == []


def test_latency_is_timed_in_a_captured_pass(seen: Seen) -> None:
    of = seen["latency", None]

    assert of["warnings"] == []
    assert of["stages"] == 3 and of["whole"] > 0


@rehearsed
def test_a_step_launches_few_kernels(seen: Seen) -> None:
    assert seen["kernels", None]["count"] <= MOST_KERNELS


@rehearsed
def test_a_supernet_s_steps_and_scores_do_not_wait_and_launch_little_more(seen: Seen) -> None:
    """It runs eagerly, as each step is of other architectures; a score is two passes here."""
    of = seen["supernet", None]

    assert of["waits"] == []
    assert of["step"] <= 1.3 * of["step_alone"]
    assert of["score"] <= 3 * of["pass_alone"]


@rehearsed
def test_triton_s_own_launcher_takes_the_kernels(runtime: Path) -> None:
    pytest.importorskip("triton")
    (of,) = run(runtime, steps=[("resnet20(base-r4-shared)", "bf16")], extras=[], triton=True)

    assert of["captured"] and of["forbidden"] == 0
