"""Every architecture of a space in one network, and what is extracted is bit for bit what ran."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from afi_search.nn import build
from afi_search.nn.supernet import Supernet, SupernetError
from afi_search.space import Architecture, Space
from afi_search.space.schema import SpaceFile
from tests.typed import there

ALL = {
    "width": ["off", "base", "B"],
    "ratio": [2, 4, 16],
    "attention": ["none", "se", "ge", "cbam", "eca"],
    "scorer": ["block", "stage"],
}
SIZES = {"resnet50": 64}
CLASSES = 5


def space_of(backbone: str = "resnet20", **axes) -> Space:
    file = {"backbone": backbone, "stages": {"all": axes or ALL}, "data": {"name": "digits"}}
    return Space(SpaceFile.model_validate(file))


def supernet_of(backbone: str = "resnet20", **axes) -> Supernet:
    space = space_of(backbone, **axes)
    return Supernet(space, num_classes=CLASSES, image_size=SIZES.get(backbone, 16))


def batch(net: Supernet, size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(size, 3, net.image_size, net.image_size, generator=generator)
    return images, torch.randint(0, CLASSES, (size,), generator=generator)


def assert_equal_to_extracted(
    net: Supernet, architecture: Architecture | str, trained: nn.Module | None = None
) -> None:
    """Compare loss, all gradients, statistics after a step, and evaluation, bit by bit.

    `trained` is what makes the step: a replica of the supernet, or where None itself.
    """
    images, labels = batch(net)
    net.train().zero_grad()
    net.set_active(architecture)
    alone = net.extract()
    (inside := cross_entropy((trained or net)(images), labels)).backward()
    (outside := cross_entropy(alone(images), labels)).backward()
    assert torch.equal(inside, outside), architecture
    parts = net.tensors(architecture)
    theirs = {name: parameter.grad for name, parameter in alone.named_parameters()}
    shared = list(net.parameters())
    in_place = torch.autograd.grad(
        [parts[name] for name in theirs], shared, list(theirs.values()), allow_unused=True
    )
    for parameter, gradient in zip(shared, in_place, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(there(parameter.grad), gradient), architecture
    for name, buffer in alone.named_buffers():
        assert torch.equal(parts[name], buffer), (architecture, name)
    net.eval(), alone.eval()
    with torch.no_grad():
        assert torch.equal(net(images), alone(images)), architecture


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_choice_is_what_is_extracted(layout):
    net = supernet_of().to(memory_format=layout)
    longest = max(map(len, net.choices))
    for shift in range(longest):
        stages = (of[(shift * (1 + n)) % len(of)] for n, of in enumerate(net.choices))
        assert_equal_to_extracted(net, Architecture("resnet20", tuple(stages)))


FAMILIES = (
    *("mobilenetv2", "shufflenetv2", "resnext29", "resnet50"),
    "toynet",  # a user's
)
OF_THE_SAME_BLOCKS = ("seresnet50", "resnext50")


@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_family_in_turn_and_back(backbone, request):
    if backbone == "toynet":
        request.getfixturevalue("toynet")
    torch.manual_seed(1)
    net = supernet_of(
        backbone, choice=["off", "base-r4", "B-r16-se", "base-r2-shared", "B-r4-cbam"]
    )
    net = net.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(2)
    one, other = net.sample_active(generator), net.sample_active(generator)
    for architecture in (one, other, one):
        assert_equal_to_extracted(net, architecture)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backbone", [*FAMILIES, *OF_THE_SAME_BLOCKS])
def test_every_family_holds_every_choice_of_every_stage_in_turn_and_back(backbone, request):
    """In each turn every stage has another choice; then the first architecture again."""
    axes = ALL
    if backbone == "toynet":
        request.getfixturevalue("toynet")
        axes = ALL | {"attention": ["none", "ge", "eca"]}  # others need more channels
    torch.manual_seed(1)
    net = supernet_of(backbone, **axes).to(memory_format=torch.channels_last)
    turns = [
        Architecture(backbone, tuple(of[(turn + n) % len(of)] for n, of in enumerate(net.choices)))
        for turn in range(max(map(len, net.choices)))
    ]
    for of, chosen in zip(
        net.choices, zip(*(turn.stages for turn in turns), strict=True), strict=True
    ):
        assert set(chosen) == set(of)
    for architecture in (*turns, turns[0]):
        assert_equal_to_extracted(net, architecture)


@settings(max_examples=4, deadline=None)
@given(st.data())
def test_any_space_holds_its_architectures(data):
    every = space_of().stage_choices[0]
    some = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=4, unique=True))
    net = supernet_of(choice=["off" if choice is None else str(choice) for choice in some])
    for _ in range(3):
        stages = data.draw(st.tuples(*(st.sampled_from(of) for of in net.choices)))
        assert_equal_to_extracted(net, Architecture("resnet20", stages))


def test_half_precision_is_what_is_extracted():
    net = supernet_of().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        for text in (
            "resnet20(B-r4-se, base-r2-cbam-shared, off)",
            "resnet20(off, B-r16-ge, B-r2)",
        ):
            assert_equal_to_extracted(net, text)


@pytest.mark.parametrize("text", ["resnet20", "resnet20(base-r4)", "resnet20(B-r4-se, off, off)"])
def test_a_supernet_of_one_architecture_trains_as_that_does(text):
    architecture = Architecture.parse(text)
    listed = SpaceFile.model_validate({"architectures": [text], "data": {"name": "digits"}})
    torch.manual_seed(3)
    net = Supernet(Space(listed), num_classes=CLASSES, image_size=16)
    torch.manual_seed(3)
    alone = build(architecture, num_classes=CLASSES, image_size=16)
    for network in (net, alone):
        optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
        for _ in range(6):
            images, labels = batch(net)
            optimiser.zero_grad()
            cross_entropy(network(images), labels).backward()
            optimiser.step()
    trained = net.extract().state_dict()
    assert all(torch.equal(trained[name], t) for name, t in alone.state_dict().items())


def test_recalibration_is_the_mean_over_the_batches():
    net = supernet_of()
    net.set_active("resnet20(B-r4-se, base-r2-cbam-shared, off)")
    batches = [torch.randn(8, 3, 16, 16) + shift for shift in range(4)]
    for parameter in net.buffers():  # whatever was there before
        parameter.data.fill_(float("nan") if parameter.is_floating_point() else 7)
    net.recalibrate(batches)
    alone = net.extract().train()
    seen: dict[Any, Any] = {}
    norms = {n: m for n, m in alone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(
            lambda _, x, name=name: seen.setdefault(name, []).append(x[0].clone())
        )
    for images in batches:
        alone(images)
    for name, inputs in seen.items():
        mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
        variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in inputs]).mean(0)
        torch.testing.assert_close(net.tensors()[f"{name}.running_mean"], mean)
        torch.testing.assert_close(net.tensors()[f"{name}.running_var"], variance)
    assert {norm.momentum for norm in norms.values()} == {0.1}
    assert net.training


def test_a_supernet_is_stored_and_restored():
    torch.manual_seed(1)
    net, other = supernet_of(), supernet_of()
    other.load_state_dict(copy.deepcopy(net.state_dict()))
    images, _ = batch(net)
    for text in ("resnet20(B-r2-eca)", "resnet20(base-r16-shared, off, B-r4)"):
        for each in (net, other):
            each.set_active(text)
        assert torch.equal(net(images), other(images))


def test_widths_share_and_choices_reach_every_weight():
    net = supernet_of(choice=["off", "base-r4", "B-r4"])
    whole = build("resnet20(B-r4)", num_classes=CLASSES, image_size=16)
    numbers = [sum(p.numel() for p in n.parameters() if p.dim() > 1) for n in (net, whole)]
    assert numbers[0] == numbers[1]
    for parameter in net.parameters():
        assert parameter.abs().sum() > 0 or parameter.dim() < 2


def test_sampling_is_a_function_of_the_generator():
    net = supernet_of(choice=["off", "base-r4"])
    draws = [
        [net.sample_active(generator) for _ in range(40)]
        for generator in (torch.Generator().manual_seed(4), torch.Generator().manual_seed(4))
    ]
    assert draws[0] == draws[1]
    assert set(draws[0]) == set(net.space.architectures())
    assert net.active == draws[0][-1]


def test_a_supernet_in_double_precision_is_what_is_extracted():
    net = supernet_of().double().eval()
    net.set_active("resnet20(B-r4-se, base-r2, off)")
    images = batch(net)[0].double()
    assert torch.equal(net.extract()(images), net(images))


def test_a_copy_is_a_supernet_of_its_own():
    net = supernet_of().eval()
    other = copy.deepcopy(net)
    before = net(batch(net)[0])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(other(batch(net)[0]), before)


def test_it_says_what_it_holds():
    net = supernet_of(choice=["off", "base-r4"])
    assert repr(net) == "<Supernet of resnet20: 8 architectures; resnet20>"
    assert "Conv2d" in repr(net.shared)


def test_an_extracted_network_exports():
    net = supernet_of().eval()
    net.set_active("resnet20(B-r4-se, base-r2, off)")
    images, _ = batch(net)
    program = torch.export.export(net.extract(), (images,))
    torch.testing.assert_close(program.module()(images), net(images))


def test_extracting_draws_nothing():
    net = supernet_of()
    before = torch.get_rng_state()
    net.extract("resnet20(B-r4)")
    assert torch.equal(before, torch.get_rng_state())


def test_data_parallel_training_reaches_what_is_active(tmp_path):
    net = supernet_of(choice=["off", "base-r4", "B-r4-se", "B-r4-shared"])
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/at", rank=0, world_size=1)
    try:
        replica = DistributedDataParallel(net, find_unused_parameters=True)
        for text in (
            "resnet20(B-r4-se)",
            "resnet20(off, base-r4, B-r4-shared)",
            "resnet20(B-r4-se)",
        ):
            assert_equal_to_extracted(net, text, replica)
    finally:
        dist.destroy_process_group()


def test_what_it_does_not_hold_is_refused():
    net = supernet_of(choice=["off", "base-r4"])
    with pytest.raises(
        SupernetError, match="stage 2 cannot be 'B-r4'; the supernet holds: off, base-r4"
    ):
        net.set_active("resnet20(off, B-r4, off)")
    with pytest.raises(SupernetError, match="not of resnet20"):
        net.extract("resnet32(base-r4)")


def test_a_space_of_two_backbones_has_none():
    file = {"architectures": ["resnet20", "resnet32"], "data": {"name": "digits"}}
    with pytest.raises(SupernetError, match="resnet20, resnet32"):
        Supernet(Space(SpaceFile.model_validate(file)))


def test_classes_and_size_are_those_of_the_spaces_data():
    net = Supernet(space_of(choice=["off", "base-r4"]))
    assert (net.num_classes, net.image_size) == (10, 32)
    assert len(list(product(*net.choices))) == len(net.space)
