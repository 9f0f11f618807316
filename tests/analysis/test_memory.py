"""Memory is counted to the byte, and AFI keeps less than the network it is built into."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import nn

from afi_search.analysis.memory import LiveBytes, Memory, allocated, traced
from afi_search.cost.counts import kept_bytes
from afi_search.nn import build
from afi_search.space import Architecture
from tests.nn.reference import on_a_cpu  # noqa: F401

KIB = 1024


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_alive_at_a_time_is_counted_once(device):
    start = torch.empty(256, device=device)  # 1 KiB
    with LiveBytes([start]) as live:
        assert live.now == live.peak == KIB
        copy = start.clone()
        view = copy[:100]
        assert live.now == 2 * KIB
        del copy
        assert live.now == 2 * KIB
        del view
        assert live.now == KIB
        sum_of_three = start + 1 + 2
        assert live.now == 2 * KIB
        start.add_(1)
    assert live.peak == 3 * KIB
    assert sum_of_three.numel() == 256


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_kept_for_the_backward_pass_is_counted_once_and_without_weights(device):
    with torch.device(device):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        images = torch.empty(3, 4)
    with kept_bytes(model) as kept:
        model(images)
    # The first layer keeps its input, and ReLU and the second layer the same activation.
    assert kept.total() == 4 * (3 * 4 + 3 * 8)


def test_what_has_been_counted_is_let_go():
    model, seen = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid()), []
    model.register_forward_hook(lambda _model, _given, made: seen.append(weakref.ref(made)))

    with kept_bytes(model) as kept:
        model(torch.ones(3, 4))

    assert kept.total() and seen[0]() is None


def test_a_device_without_data_tells_what_the_operators_keep(on_a_cpu):  # noqa: F811
    counts = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = build(Architecture.parse("resnet20(base-r4)"), num_classes=10, image_size=32)
            images = torch.empty(2, 3, 32, 32)
        with kept_bytes(model.to(memory_format=torch.channels_last)) as kept:
            model(images.to(memory_format=torch.channels_last))
        counts.append(kept.total())
    assert counts[0] == counts[1]


@pytest.mark.parametrize("text", ["resnet20(B-r4)", "resnet50(base-r4)", "mobilenetv2(B-r16)"])
def test_a_forward_pass_that_is_thrown_away_leaves_nothing_behind(text):
    with torch.device("meta"):
        model = network(text, 10, 32)()
        images = torch.empty(2, 3, 32, 32)
    with LiveBytes([*model.parameters(), *model.buffers(), images]) as live:
        before = live.now
        logits = model(images)
        assert live.now > before + logits.untyped_storage().nbytes()
        del logits
        assert live.now == before


def network(text: str, num_classes: int, image_size: int) -> Callable[[], nn.Module]:
    architecture = Architecture.parse(text)
    return partial(build, architecture, num_classes=num_classes, image_size=image_size)


@cache
def table6(text: str, batch_size: int) -> Memory:
    return traced(network(text, 1000, 224), 224, batch_size)


def per_image(text: str) -> Memory:
    """What an image more in the batch needs, where the batch is what counts."""
    few, more = table6(text, 32), table6(text, 48)
    return Memory(
        (more.training - few.training) // 16,
        (more.testing - few.testing) // 16,
        (more.kept - few.kept) // 16,
    )


def test_afi_keeps_half_a_feature_less_in_every_block_that_has_it():
    plain, afi = per_image("resnet50"), per_image("resnet50(base-r4)")
    # C x H x W of blocks 2..N, summed over the stages.
    features = 2 * 64 * 56**2 + 3 * 128 * 28**2 + 5 * 256 * 14**2 + 2 * 512 * 7**2
    saved = 4 * features // 2
    scoring = 2**16
    assert saved - scoring < plain.kept - afi.kept <= saved
    assert saved - scoring < plain.training - afi.training


def test_inference_needs_little_but_carries_features():
    plain, afi = per_image("resnet50"), per_image("resnet50(base-r4)")
    carried = 4 * (32 + 32) * 56**2  # X_1 and X_2
    assert plain.testing < plain.training / 5
    assert afi.testing == pytest.approx(plain.testing + carried, rel=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_allocator_sees_at_least_what_is_traced():
    make = network("resnet32(base-r4)", 100, 32)
    on_gpu = allocated(make, 32, 64, torch.device("cuda"))
    by_tensors = traced(make, 32, 64)
    # Narrow features are kept apart on a CPU, and not so soon on a GPU.
    assert 0.9 * by_tensors.kept <= on_gpu.kept <= 1.01 * by_tensors.kept
    assert 0.9 * by_tensors.training <= on_gpu.training <= 2 * by_tensors.training
