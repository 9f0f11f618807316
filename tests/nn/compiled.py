"""Triton's kernels compiled as a training step of an AFI-ResNet needs them, for GPUs not there.

Run as a program. Arguments: blocks a stage, 5 for ResNet-32 or 18 for ResNet-110; how many variants
there may be; compute capabilities, such as 90. Prints how many were not in Triton's cache. Compiles
as the first step of a training does: alone on its machine.
"""

from __future__ import annotations

import math
import re
import sys

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from afi_search.capture import compiling_alone
from afi_search.nn.ops import cuda


class AbsentGpu:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, device: int) -> int:
        return 0


def feature(channels: int, size: int, wider: int = 1) -> Tensor:
    """Return the first channels of a bf16 feature."""
    x = torch.zeros(8, wider * channels, size, size, dtype=torch.bfloat16)
    return x.to(memory_format=torch.channels_last)[:, :channels]


def call_all(blocks: int) -> None:
    """Call every kernel with the shapes that the stages and batch norms of a ResNet have."""
    for channels, size in ((8, 32), (16, 16), (32, 8)):
        narrow = channels < 32
        x = feature(channels, size)
        for count in range(1, blocks):
            xs = [feature(channels, size, 2)]
            xs += [x if narrow else feature(channels, size, 2)] * (count - 1)
            weights = [torch.zeros(8, channels)] * count
            both = feature(2 * channels, size)
            cuda.join(both, weights[0], x, x, xs, weights, math.inf, narrow)
            gradient = x if narrow else feature(channels, size, 2)
            cuda.channel_dots(torch.zeros(count, 8, channels), gradient, xs)
            later = [gradient] * (count - 1), weights[1:]
            own = feature(channels, size, 2)
            cuda.weighted_sum(x, x, *later, weights[0], own, xs[-1], math.inf)
            scorer = torch.zeros(channels // 4, channels), torch.zeros(channels, channels // 4)
            shares = torch.zeros(count, 8, channels)
            cuda.weigh(shares, *scorer, shares)
            for passed in (shares, None):
                parts = torch.zeros(8, 2, channels * channels // 4)
                cuda.weigh_backward(shares, parts, shares, shares, *scorer, shares, passed)
    for channels, size in ((16, 32), (8, 32), (32, 16), (64, 8)):
        x, of = feature(channels, size), torch.zeros(channels)
        cuda.moments(of, of, x, of, of, torch.tensor(0), 0.1)
        for ceiling, skip in ((0.0, None), (math.inf, None), (math.inf, x)):
            cuda.normalise(x, x, [of] * 4, skip, 1e-5, ceiling)
            cuda.normalise_backward(x, of, of, x, x, x, [of] * 4, skip, 1e-5, ceiling)


def main() -> None:
    launch, make = JITFunction.run, ASTSource.make_ir
    made: dict[int, object] = {}
    compiled_anew: list[str] = []

    def count(source: ASTSource, *given: object, **options: object) -> object:
        compiled_anew.append(source.name)
        return make(source, *given, **options)

    def compile_only(kernel: JITFunction, *given: object, **options: object) -> object:
        compiled = launch(kernel, *given, **{**options, "warmup": True})
        made[id(compiled)] = compiled
        return compiled

    JITFunction.run, ASTSource.make_ir = compile_only, count
    blocks, most, *capabilities = map(int, sys.argv[1:])
    for capability in capabilities:
        made.clear()
        driver.set_active(AbsentGpu(capability))
        with compiling_alone():
            call_all(blocks)
        assert len(made) <= most, len(made)
        for compiled in made.values():
            text = compiled.asm["ptx"]  # type: ignore[attr-defined]
            if "weigh" in compiled.name:  # type: ignore[attr-defined]  # reads no features
                continue
            # Features are read and written by whole 16 bytes, never number by number.
            assert re.search(r"ld\.global[.\w]*\.v4\.b32", text)
            assert len(re.findall(r"(?:ld|st)\.global[.\w]*\.b16\b", text)) <= 1
    print(len(compiled_anew))


if __name__ == "__main__":
    main()
