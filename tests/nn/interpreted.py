"""Networks on Triton's kernels, run by its interpreter on the CPU: see `on_device`.

Run as a program with TRITON_INTERPRET=1, which must be set before Triton is imported. Arguments:
architectures and precisions, such as "resnet20(base-r4)/fp32".
"""

from __future__ import annotations

import sys
from unittest.mock import patch

import torch

from afi_search.nn.ops import common, cuda
from afi_search.nn.ops.gathered import channel_dots, weighted_sum
from tests.nn.on_device import compare, compare_batch_norm


def check_more_features_than_a_kernel_takes() -> None:
    """Sums and dots of many features against torch's own."""
    count = 2 * cuda.MOST + 1
    features = [torch.randn(2, 8, 3, 4, dtype=torch.float64) for _ in range(count)]
    features = [x.to(memory_format=torch.channels_last) for x in features]
    weights, mean = torch.rand(count, 2, 8, dtype=torch.float64), torch.rand(2, 8).double()
    plus, gate = features[0], features[1]
    stacked = torch.stack(features)
    total = (weights[..., None, None] * stacked).sum(0) + plus + mean[..., None, None] / 12

    summed = weighted_sum(plus, features, list(weights), mean, plus, gate, 1.0)

    torch.testing.assert_close(summed, torch.where((gate > 0) & (gate < 1), total, 0.0))
    torch.testing.assert_close(channel_dots(plus, features), (stacked * plus).sum((3, 4)))


if __name__ == "__main__":
    with patch.object(common, "kernels", lambda _device: cuda):
        check_more_features_than_a_kernel_takes()
        compare_batch_norm(
            (4, 16, 16, 16), torch.bfloat16, 6.0, with_skip=True, device="cpu", times=1
        )
        for argument in sys.argv[1:]:
            text, precision = argument.split("/")
            compare(text, precision, "cpu")
