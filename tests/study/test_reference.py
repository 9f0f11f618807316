from __future__ import annotations

import pytest

from afi_search.errors import UserError
from afi_search.study.reference import measure_references, reference_point
from tests.report.synthetic_records import study_info


def test_plain_backbone_and_paper_points_are_measured_at_the_studys_size() -> None:
    marks = measure_references(study_info())
    assert marks.plain["resnet32"].params == 472_756
    assert [(row.model, cost.params) for row, cost in marks.paper] == [
        ("ResNet-32", 472_756),
        ("AFI-ResNet-32", 378_228),
        ("AFI-ResNet-32-B", 668_980),
    ]


def test_another_data_set_has_no_paper_points() -> None:
    marks = measure_references(study_info(dataset="digits", num_classes=10))
    assert marks.paper == ()
    assert marks.plain["resnet32"].params == 472_756 - 90 * 65


def test_every_backbone_of_a_study_has_its_references() -> None:
    marks = measure_references(study_info(backbones=("resnet32", "resnet110")))
    assert list(marks.plain) == ["resnet32", "resnet110"]
    assert len(marks.paper) == 6


def test_reference_is_guessing_at_twice_the_dearest_plain_backbone() -> None:
    info = study_info(backbones=("resnet110", "resnet32"))
    marks = measure_references(info)
    assert reference_point(marks, info) == (0.01, 2.0 * marks.plain["resnet110"].macs)


def test_unknown_backbone_is_a_persons_mistake() -> None:
    with pytest.raises(UserError, match="resnet33"):
        measure_references(study_info(backbones=("resnet33",)))
