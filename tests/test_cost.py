"""Costs: against the paper's tables, and sums against direct measurement."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afi_search.cost import Cost, measure, stage_costs
from afi_search.errors import UserError
from afi_search.nn import build
from afi_search.space import (
    ATTENTIONS,
    SCORERS,
    WIDTHS,
    Architecture,
    StageChoice,
)

# The paper's Table 4: parameters exact, FLOPs (batch of 32) as printed.
CIFAR_ROWS = {
    "resnet32": (472_756, 2.23),
    "resnet32(base-r4)": (378_228, 1.78),
    "resnet32(B-r16)": (668_980, 3.15),
    "resnet110": (1_736_564, 8.17),
    "resnet110(base-r4)": (1_334_820, 6.23),
    "resnet110(B-r16)": (2_570_516, 12.06),
}


@pytest.mark.parametrize("text", CIFAR_ROWS)
def test_cost_is_that_of_the_paper(text):
    params, gflops = CIFAR_ROWS[text]
    cost = measure(Architecture.parse(text), num_classes=100, image_size=32)
    assert cost.params == params
    assert cost.paper_gflops == pytest.approx(gflops, rel=0.01)


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


CHOICES = [
    None,
    *(
        StageChoice(width, ratio, attention, scorer)
        for width, ratio, attention, scorer in product(
            WIDTHS, (2, 16), (None, *ATTENTIONS), SCORERS
        )
    ),
]


@pytest.fixture(scope="module")
def resnet20_costs():
    return stage_costs("resnet20", [CHOICES] * 3, num_classes=10, image_size=32)


@settings(deadline=None, max_examples=40)
@given(stages=st.tuples(*[st.sampled_from(CHOICES)] * 3))
def test_stage_costs_add_up_to_the_measured_cost(resnet20_costs, stages):
    architecture = Architecture("resnet20", stages)
    assert resnet20_costs.cost(architecture) == measure(architecture, num_classes=10, image_size=32)


def test_choices_may_differ_from_stage_to_stage():
    narrow, wide = StageChoice("base", 2), StageChoice("B", 8, "se")
    costs = stage_costs("resnet20", [[narrow], [None, wide], []], num_classes=10, image_size=32)
    assert [set(delta) for delta in costs.deltas] == [{None, narrow}, {None, wide}, {None}]
    architecture = Architecture("resnet20", (narrow, wide, None))
    assert costs.cost(architecture) == measure(architecture, num_classes=10, image_size=32)


def test_params_are_those_of_the_built_model():
    architecture = Architecture.parse("resnet20(base-r2-cbam, B-r4-shared, off)")
    model = build(architecture, num_classes=10, image_size=32)
    cost = measure(architecture, num_classes=10, image_size=32)
    assert isinstance(cost, Cost)
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())
