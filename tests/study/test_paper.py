from __future__ import annotations

import pytest

from afi_search.cost import measure
from afi_search.space import BACKBONES
from afi_search.space.architecture import Architecture
from afi_search.study.paper import PaperResult, paper_data, paper_results, paper_results_for

BUILT = [row for row in paper_results() if row.backbone in BACKBONES]


def test_tables_4_and_5_are_there_row_by_row() -> None:
    tables = [row.table for row in paper_results() if row.table is not None]
    assert tables == [4] * 15 + [5] * 7


@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.model)
def test_texts_are_canonical(row: PaperResult) -> None:
    assert str(Architecture.parse(row.architecture)) == row.architecture


@pytest.mark.parametrize(
    "row", [row for row in BUILT if row.params is not None], ids=lambda row: row.model
)
def test_our_counts_are_those_of_the_paper(row: PaperResult) -> None:
    assert row.flops_g is not None
    cost = measure(
        Architecture.parse(row.architecture),
        num_classes=row.dataset.num_classes,
        image_size=row.dataset.image_size,
    )
    assert cost.params == row.params
    assert cost.paper_gflops == pytest.approx(row.flops_g, rel=0.01)


@pytest.mark.parametrize(
    "row",
    [row for row in paper_results() if row.params and "printed" not in row.note],
    ids=lambda row: row.model,
)
def test_exact_parameters_round_to_the_printed_ones(row: PaperResult) -> None:
    assert row.printed_params is not None and row.params is not None
    figure, unit = row.printed_params[:-1], row.printed_params[-1]
    scaled = row.params / {"K": 1e3, "M": 1e6}[unit]
    assert f"{scaled:.2f}" == figure


def test_rows_are_found_by_backbone_data_set_and_image_size() -> None:
    models = [row.model for row in paper_results_for("resnet32", "cifar100", 32)]
    assert models == ["ResNet-32", "AFI-ResNet-32", "AFI-ResNet-32-B"]
    assert paper_results_for("resnet32", "digits", 32) == ()
    assert paper_results_for("resnet50", "imagenet", 32) == ()
    assert len(paper_results_for("mobilenetv2", "cifar100", 32)) == 7


def test_rows_of_another_network_than_they_name_are_left_out() -> None:
    assert paper_results_for("shufflenetv2", "cifar100", 32) == ()
    assert all(row.note for row in paper_results() if not row.same_network)


def test_source_and_conventions_are_stated() -> None:
    data = paper_data()
    assert "Attentive Feature Integration" in data["source"]
    assert "batch" in data["conventions"]["flops_g"]
