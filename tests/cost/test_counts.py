"""Costs: against the paper's tables, and sums against direct measurement."""

from __future__ import annotations

from functools import cache, partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afi_search.cost import Cost, measure
from afi_search.cost.counts import count
from afi_search.cost.table import count_choices
from afi_search.errors import UserError
from afi_search.nn import build
from afi_search.space import ATTENTIONS, Architecture, StageChoice, get_backbone
from afi_search.space.architecture import SCORERS, WIDTHS

# The paper's Tables 4 and 5: parameters exact, FLOPs (batch of 32) as printed. Where the printed
# parameters are those of another ratio than the paper names, the row has that ratio, too.
CIFAR_ROWS = {
    "resnet32": (472_756, 2.23),
    "resnet32(base-r4)": (378_228, 1.78),
    "resnet32(B-r16)": (668_980, 3.15),
    "resnet110": (1_736_564, 8.17),
    "resnet110(base-r4)": (1_334_820, 6.23),
    "resnet110(base-r2)": (1_346_244, 6.23),
    "resnet110(B-r16)": (2_570_516, 12.06),
    "mobilenetv2": (2_412_212, 3.03),
    "mobilenetv2(base-r4)": (2_534_276, 2.67),
    "mobilenetv2(base-r16)": (2_248_868, 2.67),
    "mobilenetv2(B-r16)": (2_835_428, 3.16),
    "resnext29": (4_866_468, 24.95),
    "resnext29(base-r4)": (4_262_564, 21.74),
    "resnext29(B-r8)": (5_232_036, 25.90),
    "resnext29(B-r16)": (5_146_020, 25.90),
}
IMAGENET_ROWS = {
    "resnet50": (25_557_032, 131.57),
    "resnet50(base-r4)": (23_849_256, 121.72),
    "resnet50(B-r16)": (33_854_504, 176.05),
    "resnet152": (60_192_808, 369.88),
    "resnet152(base-r4)": (54_667_560, 332.24),
    "seresnet50": (28_071_976, 131.83),
    "seresnet152": (66_770_984, 370.52),
}


def check_row(text: str, num_classes: int, image_size: int, params: int, gflops: float) -> None:
    cost = measure(Architecture.parse(text), num_classes=num_classes, image_size=image_size)
    assert cost.params == params
    assert cost.paper_gflops == pytest.approx(gflops, rel=0.01)


@pytest.mark.parametrize("text", CIFAR_ROWS)
def test_cost_on_cifar_is_that_of_the_paper(text):
    check_row(text, 100, 32, *CIFAR_ROWS[text])


@pytest.mark.parametrize("text", IMAGENET_ROWS)
def test_cost_on_imagenet_is_that_of_the_paper(text):
    check_row(text, 1000, 224, *IMAGENET_ROWS[text])


def test_shufflenetv2_on_cifar_is_the_published_one():
    cost = measure(Architecture.plain("shufflenetv2"), num_classes=100, image_size=32)
    assert cost.params == 1_356_104
    assert cost.paper_gflops == pytest.approx(1.479, abs=0.001)


@pytest.mark.parametrize(
    ("backbone", "base", "wide"),
    [
        ("resnet110", 4, 16),
        ("mobilenetv2", 16, 16),
        ("resnext29", 4, 8),
        ("resnet50", 4, 16),
        ("shufflenetv2", 4, 16),
    ],
)
def test_each_family_has_the_papers_ratios(backbone, base, wide):
    assert dict(get_backbone(backbone).ratios) == {"base": base, "B": wide}


def test_macs_of_a_small_resnet_counted_by_hand():
    stage1 = 6 * 16 * 16 * 9 * 32 * 32
    stage2 = (16 * 32 * 9 + 5 * 32 * 32 * 9 + 16 * 32) * 16 * 16
    stage3 = (32 * 64 * 9 + 5 * 64 * 64 * 9 + 32 * 64) * 8 * 8
    plain = 3 * 16 * 9 * 32 * 32 + stage1 + stage2 + stage3 + 64 * 10
    assert measure(Architecture.plain("resnet20"), num_classes=10, image_size=32).macs == plain

    # Width B in stage 3: two second convolutions read 64 channels more, and the scorers of blocks
    # 2 and 3 (16 hidden units) score one and two sources.
    extra = 2 * 64 * 64 * 9 * 8 * 8 + (1 + 2) * 2 * 64 * 16
    widened = Architecture.parse("resnet20(off, off, B-r4)")
    assert measure(widened, num_classes=10, image_size=32).macs == plain + extra


def test_measuring_neither_runs_the_network_nor_draws_random_numbers():
    before = torch.get_rng_state()
    measure(Architecture.parse("resnet20(B-r2)"), num_classes=17, image_size=32)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_built_cannot_be_measured():
    with pytest.raises(UserError, match="48"):
        measure(Architecture.plain("resnet20"), num_classes=10, image_size=48)


@pytest.fixture(scope="module")
def costs_of():
    """The choices of every stage of a backbone, and their table, memory among it; made once.

    With all attentions on a ResNet alone: to count the others takes a second for each network.
    """

    @cache
    def costs(name):
        attentions = ATTENTIONS.names if name == "resnet20" else ["se"]
        axes = product(WIDTHS, (2, 16), (None, *attentions), SCORERS)
        choices = [None, *(StageChoice(*values) for values in axes)]
        counted = partial(count, num_classes=10, image_size=32, batch_size=16)
        return choices, count_choices(name, [choices] * len(get_backbone(name).stages), counted)

    return costs


@pytest.mark.parametrize("backbone", ["resnet20", "mobilenetv2", "shufflenetv2"])
@settings(deadline=None, max_examples=3)
@given(data=st.data())
def test_stage_costs_add_up_to_the_measured_cost(costs_of, backbone, data):
    choices, table = costs_of(backbone)
    stages = data.draw(st.tuples(*[st.sampled_from(choices)] * len(get_backbone(backbone).stages)))
    architecture = Architecture(backbone, stages)
    assert table.of(architecture).cost == measure(
        architecture, num_classes=10, image_size=32, batch_size=16
    )


def test_choices_may_differ_from_stage_to_stage():
    narrow, wide = StageChoice("base", 2), StageChoice("B", 8, "se")
    counted = partial(count, num_classes=10, image_size=32)
    costs = count_choices("resnet20", [[narrow], [None, wide], []], counted)
    assert [set(stage) for stage in costs.stages] == [{None, narrow}, {None, wide}, {None}]
    architecture = Architecture("resnet20", (narrow, wide, None))
    assert costs.of(architecture).cost == measure(architecture, num_classes=10, image_size=32)


def test_params_are_those_of_the_built_model():
    architecture = Architecture.parse("resnet20(base-r2-cbam, B-r4-shared, off)")
    model = build(architecture, num_classes=10, image_size=32)
    cost = measure(architecture, num_classes=10, image_size=32)
    assert isinstance(cost, Cost)
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())


def test_multiply_accumulates_at_16_pixels_are_those_of_the_layers():
    """A ResNet-20's convolutions at 16, 8 and 4 pixels, by hand; only the classifier stays."""
    stem = 16 * 16 * 9 * 3 * 16
    first = 6 * 16 * 16 * 9 * 16 * 16
    second = 8 * 8 * (9 * 16 * 32 + 16 * 32 + 5 * 9 * 32 * 32)
    third = 4 * 4 * (9 * 32 * 64 + 32 * 64 + 5 * 9 * 64 * 64)
    plain = Architecture.plain("resnet20")

    small = measure(plain, num_classes=100, image_size=16)

    assert small.macs == stem + first + second + third + 64 * 100
    assert 4 * (small.macs - 6400) == measure(plain, num_classes=100, image_size=32).macs - 6400
    assert small.params == measure(plain, num_classes=100, image_size=32).params
