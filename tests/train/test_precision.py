from __future__ import annotations

import pytest
import torch

from afi_search.train import autocast_dtype
from afi_search.train.precision import cpu_computes_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, False),
        ({"avx2": True}, False),
        ({"neon": True, "bf16": True}, False),
        ({}, False),
    ],
)
def test_a_cpu_computes_bf16_where_it_has_the_instructions(capabilities, expected):
    assert cpu_computes_bf16(capabilities) is expected


def test_what_is_named_is_taken_and_auto_asks_the_device(monkeypatch):
    assert autocast_dtype("fp32", CPU) is None
    assert autocast_dtype("bf16", CPU) is torch.bfloat16

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert autocast_dtype("auto", CPU) is torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert autocast_dtype("auto", CPU) is None
    assert autocast_dtype("auto", torch.device("meta")) is None
