"""A stage carries its features as DESIGN says: which sources, which channels, in which order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from afi_search.nn import Block, Stage, afi_weights, build
from afi_search.nn.afi import Scorer
from afi_search.nn.ops.common import plain
from afi_search.nn.stage import transition_source
from afi_search.space import Architecture, StageChoice, StageShape
from tests.typed import part, there

WIDTHS = ("base", "B")


class TwoConvolutions(Block):
    """A block with a stride on either convolution and no ReLU after the second."""

    def __init__(self, inputs, hidden, strides, first, second):
        super().__init__()
        self.one = nn.Conv2d(inputs, first, 3, stride=strides[0], padding=1)
        self.two = nn.Conv2d(second, hidden, 3, stride=strides[1], padding=1)

    def first(self, x: Tensor) -> Tensor:
        return self.one(x)

    def second(self, feature: Tensor) -> Tensor:
        return self.two(feature)

    def last(self, y: Tensor, x: Tensor) -> Tensor:
        return y + x if x.shape == y.shape else y


def make_stage(choice, *, blocks=4, channels=8, strides=(1, 1), narrow=None) -> Stage:
    """`narrow`: channels of the transition block's features, if not those of the stage."""
    hidden = channels if narrow is None else narrow
    transition = TwoConvolutions(3, hidden, strides, hidden, hidden)

    def following(first, second):
        inputs = hidden if not made else channels
        made.append(None)
        return TwoConvolutions(inputs, channels, (1, 1), first, second)

    made: list[None] = []
    return Stage(StageShape(channels, blocks), choice, transition, following)


def literal(stage: Stage, x: Tensor, choice: StageChoice, source: Tensor | None) -> Tensor:
    """Carry features through a stage as the design says it, one block after the other."""
    blocks = list(stage)
    x = blocks[0](x)
    sources = [] if source is None else [source]
    for i, block in enumerate(blocks[1:]):
        feature = block.activate(block.first(x))
        read = sources or [feature]
        shared = choice.scorer == "stage"
        scorer = part(there(stage.afi), "scorer" if shared else f"scorers.{i}", Scorer)
        scores = torch.stack(
            [
                scorer.expand.weight @ F.relu(scorer.reduce.weight @ z)
                for z in torch.stack([s.mean((2, 3)) for s in read]).flatten(0, 1)
            ]
        ).reshape(len(read), *feature.shape[:2])
        weights = scores.exp() / scores.exp().sum(0)
        integrated = sum(w[:, :, None, None] * s for w, s in zip(weights, read, strict=True))
        x = block.last(block.second(torch.cat([feature, integrated], 1)), x)
        sources.append(feature)
    return x


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scorer", ["block", "stage"])
@pytest.mark.parametrize(
    ("strides", "from_second"), [((1, 1), False), ((2, 1), False), ((1, 2), True), ((2, 2), True)]
)
def test_sources_are_the_features_of_all_blocks_before(width, scorer, strides, from_second):
    choice = StageChoice(width, 2, scorer=scorer)
    stage = make_stage(choice, strides=strides).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    transition = next(iter(stage))
    first = transition.activate(transition.first(x))
    second = transition.second(first)
    source = (F.relu(second) if from_second else first)[:, : 4 if width == "base" else 8]

    torch.testing.assert_close(stage(x), literal(stage, x, choice, source))


@pytest.mark.parametrize("scorer", ["block", "stage"])
@pytest.mark.parametrize("blocks", [2, 3, 5])
def test_where_the_transition_is_too_narrow_the_list_starts_with_block_2(scorer, blocks):
    choice = StageChoice("B", 2, scorer=scorer)
    stage = make_stage(choice, blocks=blocks, narrow=6).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(stage(x), literal(stage, x, choice, None))


def test_a_narrow_transition_still_feeds_the_base_width():
    choice = StageChoice("base", 2)
    stage = make_stage(choice, narrow=6).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    transition = next(iter(stage))
    source = transition.activate(transition.first(x))[:, :4]
    torch.testing.assert_close(stage(x), literal(stage, x, choice, source))


def test_a_stage_without_afi_is_its_blocks_one_after_the_other():
    stage = make_stage(None)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(stage(x), nn.Sequential(*stage)(x))
    assert {name.split(".")[0] for name in stage.state_dict()} == {"0", "1", "2", "3"}


def test_transition_source_prefers_the_first_convolution():
    block = TwoConvolutions(3, 8, (1, 1), 8, 8)
    first, second = torch.rand(1, 8, 4, 4), -torch.ones(1, 8, 4, 4)
    assert transition_source(block, first, second, 6) is first
    narrow = transition_source(block, first[:, :, :2], second, 6)
    assert torch.equal(there(narrow), torch.zeros(1, 8, 4, 4))
    assert transition_source(block, first, second, 9) is None
    block.second_is_source = False
    assert transition_source(block, first[:, :, :2], second, 6) is None


def test_a_second_convolution_that_is_rectified_is_taken_as_it_is():
    block = TwoConvolutions(3, 8, (2, 1), 8, 8)
    block.second_is_rectified = True
    second = torch.rand(1, 8, 4, 4)
    source = transition_source(block, torch.rand(1, 8, 8, 8), second, 6)
    assert source is second


@pytest.mark.parametrize("backbone", ["resnet50", "resnext50", "mobilenetv2"])
def test_what_is_said_to_be_rectified_is(backbone):
    model = build(Architecture.plain(backbone), num_classes=10, image_size=64).eval()
    stages = [module for module in model.modules() if isinstance(module, Stage)]
    seen = []

    def check(block: Block, inputs: tuple[Tensor, ...]) -> None:
        feature = block.activate(block.first(inputs[0]))
        seen.append(block.second_is_rectified and bool((block.second(feature) >= 0).all()))

    for stage in stages:
        next(iter(stage)).register_forward_pre_hook(check)
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    assert seen == [True] * len(stages)


@pytest.mark.parametrize("blocks", [2, 3, 5])
@pytest.mark.parametrize("scorer", ["block", "stage"])
@pytest.mark.parametrize("narrow", [None, 6])
def test_the_weights_of_every_block_can_be_read(blocks, scorer, narrow):
    stage = make_stage(StageChoice("B", 2, scorer=scorer), blocks=blocks, narrow=narrow)
    model = nn.Sequential(stage)

    weights = afi_weights(model, torch.randn(2, 3, 8, 8))

    counts = {block: block if narrow is None else max(1, block - 1) for block in range(1, blocks)}
    assert {name: tuple(of.shape) for name, of in weights.items()} == {
        f"0.{block}": (2, sources, 8) for block, sources in counts.items()
    }
    for of in weights.values():
        torch.testing.assert_close(of.sum(1), torch.ones(2, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_both_scorers_agree_where_all_blocks_have_the_same_weights():
    text = "resnet20(off, B-r4{}, off)"
    per_block = build(Architecture.parse(text.format("")), num_classes=10, image_size=32)
    shared = build(Architecture.parse(text.format("-shared")), num_classes=10, image_size=32)
    shared_state = shared.state_dict()
    with torch.no_grad():
        for name, parameter in per_block.state_dict().items():
            own = name.replace("scorers.0.", "scorer.").replace("scorers.1.", "scorer.")
            parameter.copy_(shared_state[own])
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(per_block.eval()(x), shared.eval()(x))


@pytest.mark.filterwarnings("error:.*batching rule")
@pytest.mark.parametrize("text", ["resnet20(base-r4)", "resnet20(B-r4-se, off, base-r4-shared)"])
def test_plain_torch_gives_each_images_own_gradients_and_second_derivatives(text):
    torch.manual_seed(0)
    model = build(Architecture.parse(text), num_classes=5, image_size=16).double().eval()
    images, labels = torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.tensor([1, 2, 3])
    parameters = dict(model.named_parameters())

    def loss(parameters, image, label):
        logits = functional_call(model, parameters, (image[None],))
        return F.cross_entropy(logits, label[None])

    with plain():
        of_each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            alone = torch.autograd.grad(
                loss(parameters, image, label), list(parameters.values()), create_graph=True
            )
            for name, gradient in zip(parameters, alone, strict=True):
                torch.testing.assert_close(of_each[name][number], gradient)
        torch.stack([gradient.square().sum() for gradient in alone]).sum().backward()
    assert all(there(each.grad).isfinite().all() for each in parameters.values())
