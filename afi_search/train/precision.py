"""Which numbers a model computes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

# x86 instructions that multiply bf16; without them bf16 is emulated, slower than fp32.
CPU_BF16 = ("avx512_bf16", "amx_bf16")


def autocast_dtype(
    precision: Literal["auto", "fp32", "bf16"], device: torch.device
) -> torch.dtype | None:
    """Return the dtype to autocast to on `device`, or None for plain fp32."""
    if precision == "auto":
        return torch.bfloat16 if computes_bf16(device) else None
    return torch.bfloat16 if precision == "bf16" else None


def computes_bf16(device: torch.device) -> bool:
    """Return whether `device` multiplies bf16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_computes_bf16(torch.cpu.get_capabilities())


def cpu_computes_bf16(capabilities: Mapping[str, object]) -> bool:
    """Return whether a CPU with these capabilities multiplies bf16 in hardware."""
    return any(capabilities.get(name, False) for name in CPU_BF16)
