"""Triton's kernels, run by its interpreter on the CPU, against the written-out contractions.

Run as a program with TRITON_INTERPRET=1, which must be set before Triton is imported.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from afi_search.nn.ops.common import at_least_float32
from afi_search.nn.ops.cuda import channel_dots, weighted_sum

LAYOUTS = (torch.contiguous_format, torch.channels_last)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def features(count: int, channels: int, dtype: torch.dtype, layout: torch.memory_format):
    """Return features of 7 x 5 pixels; the last is a slice of a wider tensor's channels."""
    made = [torch.randn(2, channels, 7, 5, dtype=torch.float64).to(dtype) for _ in range(count)]
    made = [feature.to(memory_format=layout) for feature in made]
    wider = torch.cat((made[-1], made[-1]), dim=1).to(memory_format=layout)
    return [*made[:-1], wider[:, :channels]]


def close(got: Tensor, wanted: Tensor) -> None:
    tolerance = TOLERANCE[got.dtype]
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=10 * tolerance)


def main() -> None:
    torch.manual_seed(0)
    for count, channels, dtype, layout in itertools.product((1, 3), (5, 130), TOLERANCE, LAYOUTS):
        xs = features(count, channels, dtype, layout)
        weights = torch.rand(2, count, channels, dtype=at_least_float32(dtype))
        start = torch.rand(2, channels, dtype=weights.dtype)
        room = torch.zeros(2, 2 * channels, 7, 5, dtype=dtype).to(memory_format=layout)
        plain = sum(
            x.double() * weight[..., None, None].double()
            for x, weight in zip(xs, weights.unbind(1), strict=True)
        )
        for first, plus in itertools.product((None, start), (None, xs[-1])):
            weighted_sum(xs, weights.unbind(1), first, plus, room[:, channels:])
            wanted = plain if first is None else plain + first[..., None, None].double()
            close(room[:, channels:], wanted if plus is None else wanted + plus.double())
            assert not room[:, :channels].any()
        dots = torch.stack([(xs[-1].double() * x.double()).sum((2, 3)) for x in xs], 1)
        got = channel_dots(xs[-1], xs)
        assert got.dtype == weights.dtype
        torch.testing.assert_close(got.double(), dots, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    main()
