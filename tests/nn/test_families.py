"""What holds for every backbone and every architecture of it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afi_search.nn import Stage, afi_weights, build
from afi_search.nn.afi import Scorer
from afi_search.space import ATTENTIONS, BACKBONES, Architecture, Space, StageChoice, get_backbone
from afi_search.space.architecture import SCORERS, WIDTHS
from tests.typed import there

SPACES = sorted(Path(__file__).parents[2].glob("spaces/*.yaml"))

# One of each kind of block and of network; the slow test goes over all backbones.
REPRESENTATIVES = ("resnet20", "resnet50", "resnext29", "mobilenetv2", "shufflenetv2")

LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "resnext29")]

CHOICES = st.builds(
    StageChoice,
    width=st.sampled_from(WIDTHS),
    ratio=st.sampled_from([1, 2, 4, 8, 16, 64]),
    attention=st.sampled_from([None, *ATTENTIONS.names]),
    scorer=st.sampled_from(SCORERS),
)

# Each attention, both scorers and both widths, and a stage that is off where there are enough.
VARIED = [
    StageChoice("base", 4, "se"),
    StageChoice("B", 16, "cbam", "stage"),
    StageChoice("base", 2, "eca", "stage"),
    None,
    StageChoice("B", 4, "ge"),
]


def architectures(backbone: str) -> st.SearchStrategy[Architecture]:
    stages = len(get_backbone(backbone).stages)
    return st.builds(Architecture, st.just(backbone), st.tuples(*[st.none() | CHOICES] * stages))


def varied(backbone: str) -> Architecture:
    return Architecture(backbone, tuple(VARIED[: len(get_backbone(backbone).stages)]))


def small_sizes(backbone: str) -> list[int]:
    return [size for size in get_backbone(backbone).image_sizes if size <= 64]


def scorers_of_a_single_source(model: torch.nn.Module, images: torch.Tensor) -> set[str]:
    """The names of the parameters that BlockAFI documents as dead."""
    sources = {name: weights.shape[1] for name, weights in afi_weights(model, images).items()}
    dead = set()
    for name, module in model.named_modules():
        if isinstance(module, Scorer) and ".afi.scorers." in name:
            stage, reader = name.split(".afi.scorers.")
            if sources[f"{stage}.{int(reader) + 1}"] == 1:
                dead |= {f"{name}.reduce.weight", f"{name}.expand.weight"}
    return dead


def check_that_it_trains(data: st.DataObject, architecture: Architecture) -> None:
    size = data.draw(st.sampled_from(small_sizes(architecture.backbone)))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    layout = data.draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    model = build(architecture, num_classes=10, image_size=size).to(memory_format=layout)
    images = torch.randn(2, 3, size, size).to(memory_format=layout)

    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = model(images)
    logits.float().square().mean().backward()

    assert logits.shape == (2, 10)
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    gradients = {name: there(parameter.grad) for name, parameter in model.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    dead = scorers_of_a_single_source(model, images)
    assert not any(gradients[name].any() for name in dead)


@pytest.mark.parametrize("backbone", ["resnet20", "mobilenetv2", "shufflenetv2", *LARGE])
@settings(deadline=None, max_examples=3)
@given(data=st.data())
def test_random_architectures_train(backbone, data):
    check_that_it_trains(data, data.draw(architectures(backbone)))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES.names)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_many_random_architectures_train(backbone, data):
    check_that_it_trains(data, data.draw(architectures(backbone)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
@settings(deadline=None, max_examples=4)
@given(data=st.data())
def test_random_architectures_of_every_space_train_copy_and_export(path, data):
    space = Space.load(path)
    architecture = space[data.draw(st.integers(0, space.size - 1))]
    check_that_it_trains(data, architecture)
    check_copies(architecture)
    check_export(architecture)


@pytest.mark.parametrize("backbone", REPRESENTATIVES)
def test_copies_and_state_dicts_give_the_same_network(backbone):
    check_copies(varied(backbone))


def check_copies(architecture: Architecture) -> None:
    def made(seed):
        torch.manual_seed(seed)
        return build(architecture, num_classes=10, image_size=32)

    model, other = made(1), made(2)
    images = torch.randn(2, 3, 32, 32)
    model(images)
    with torch.no_grad():
        expected = model.eval()(images)
        other.load_state_dict(model.state_dict())
        twin = copy.deepcopy(model)

        assert torch.equal(twin(images), expected)
        assert torch.equal(other.eval()(images), expected)
        for name, tensor in model.state_dict().items():
            assert torch.equal(other.state_dict()[name], tensor)
            assert torch.equal(twin.state_dict()[name], tensor)


@pytest.mark.parametrize(
    "backbone",
    ["resnet20", "shufflenetv2", pytest.param("mobilenetv2", marks=pytest.mark.slow), *LARGE],
)
def test_networks_can_be_exported_for_any_batch_size(backbone):
    check_export(varied(backbone))


def check_export(architecture: Architecture) -> None:
    # In float64, as a hundred layers of random weights make logits of 10^8.
    model = build(architecture, num_classes=10, image_size=32).eval().double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    batch = torch.export.Dim("batch")

    exported = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))

    more = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(more), model(more))


@pytest.mark.parametrize("backbone", REPRESENTATIVES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_stay_channels_last_from_stage_to_stage(backbone, dtype):
    model = build(varied(backbone), num_classes=10, image_size=32)
    model = model.to(memory_format=torch.channels_last)
    outputs = []
    for module in model.modules():
        if isinstance(module, Stage):
            for part in (module, *module):
                part.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)

    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        model(images)

    assert outputs
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in outputs)


@pytest.mark.parametrize("backbone", REPRESENTATIVES)
@pytest.mark.parametrize("width", WIDTHS)
def test_blocks_read_all_features_before_them(backbone, width):
    model = build(
        Architecture.uniform(backbone, StageChoice(width, 4)), num_classes=10, image_size=32
    )
    # In width B, no convolution of MobileNetV2's transition blocks is wide enough for X_1.
    missing = 1 if (backbone, width) == ("mobilenetv2", "B") else 0

    weights = afi_weights(model.eval(), torch.randn(1, 3, 32, 32))

    blocks = [stage.blocks for stage in get_backbone(backbone).stages]
    expected = [max(1, i - missing) for count in blocks for i in range(1, count)]
    assert [of.shape[1] for of in weights.values()] == expected


def test_searched_stages_are_as_wide_and_deep_as_the_backbone_says():
    for backbone in BACKBONES.names:
        with torch.device("meta"):
            model = build(Architecture.plain(backbone), num_classes=10, image_size=32)
        stages = [module for module in model.modules() if isinstance(module, Stage)]
        shapes = get_backbone(backbone).stages
        assert [len(list(stage)) for stage in stages] == [shape.blocks for shape in shapes]
        for stage, shape in zip(stages, shapes, strict=True):
            for block in list(stage)[1:]:
                norms = [m for m in block.modules() if isinstance(m, torch.nn.BatchNorm2d)]
                assert norms[0].num_features == shape.channels
