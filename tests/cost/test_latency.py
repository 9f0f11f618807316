from __future__ import annotations

import pytest
import torch

from afi_search.cost.latency import time_stages
from afi_search.space import Architecture

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_stages_are_timed_within_the_network(device: str) -> None:
    times = time_stages(
        Architecture.parse("resnet20(base-r4, off, B-r16-se)"),
        num_classes=10,
        image_size=32,
        device=torch.device(device),
        batch_size=2,
    )

    assert len(times.stages) == 3
    assert all(stage.latency > 0 for stage in times.stages)
    assert max(times.stages).latency < times.whole.latency
