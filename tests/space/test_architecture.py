from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from afi_search.registry import UnknownName
from afi_search.space import Architecture, ArchitectureError, StageChoice
from afi_search.space.architecture import canonical_ratio, hidden_units
from tests.space.strategies import architectures


@given(architectures())
@settings(deadline=None)
def test_text_reads_back_to_the_same_architecture(architecture: Architecture) -> None:
    again = Architecture.parse(architecture.text)

    assert again == architecture
    assert hash(again) == hash(architecture)
    assert again.text == architecture.text
    assert again.id == architecture.id
    assert again.slug == architecture.slug


@given(architectures(), architectures())
@settings(deadline=None)
def test_different_architectures_differ_in_text_and_slug(
    one: Architecture, other: Architecture
) -> None:
    assert (one == other) == (one.text == other.text)
    assert (one == other) == (one.slug == other.slug)


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("resnet32(base-r4,off,B-r16-se)", "resnet32(base-r4, off, B-r16-se)"),
        (" resnet32 ( base-r4 , off , off ) ", "resnet32(base-r4, off, off)"),
        ("resnet32(off)", "resnet32"),
        ("resnet32(off, off, off)", "resnet32"),
        ("resnet110(B-r16, B-r16, B-r16)", "resnet110(B-r16)"),
        ("resnet110(B-r16-eca-shared)", "resnet110(B-r16-eca-shared)"),
        # Stage 1 has C' = 8 in base: r8 and r16 both leave one hidden unit.
        ("resnet32(base-r16, off, off)", "resnet32(base-r8, off, off)"),
        ("resnet32(base-r3, off, off)", "resnet32(base-r4, off, off)"),
    ],
)
def test_one_network_has_one_text(spelling: str, canonical: str) -> None:
    assert Architecture.parse(spelling).text == canonical


@pytest.mark.parametrize("channels", [8, 16, 29, 72, 144])
def test_canonical_ratio_keeps_the_hidden_units_and_is_the_same_for_equal_ones(
    channels: int,
) -> None:
    by_hidden: dict[int, set[int]] = {}
    for ratio in range(1, 4 * channels):
        canonical = canonical_ratio(channels, ratio)
        assert hidden_units(channels, canonical) == hidden_units(channels, ratio)
        by_hidden.setdefault(hidden_units(channels, ratio), set()).add(canonical)

    assert all(len(canonical) == 1 for canonical in by_hidden.values())
    assert all(canonical_ratio(channels, r) == r for r in (2, 4, 8) if channels % r == 0)


def test_names_do_not_change_between_versions() -> None:
    """File names and ledgers depend on these."""
    architecture = Architecture.parse("resnet32(base-r4, off, B-r16-se)")

    assert architecture.slug == "resnet32_base-r4_off_B-r16-se"
    assert architecture.id == "5d258e89"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resnet33", "Did you mean 'resnet32'?"),
        ("resnet32(base-r4, off)", "resnet32 has 3 stages, and 2 choices are given"),
        ("resnet32(bse-r4)", "Did you mean 'base'?"),
        ("resnet32(base)", "nothing stands where the ratio is wanted"),
        ("resnet32(base-4)", "'4' stands where the ratio is wanted"),
        ("resnet32(base-r0)", "'r0' stands where the ratio is wanted"),
        ("resnet32(base-r4-cbma)", "'cbma' is no add-on attention. Did you mean 'cbam'?"),
        ("resnet32(base-r4-se-eca)", "'eca' is too much"),
        ("resnet32(off-r4)", "'off' is not a width"),
        ("resnet32(base-r4", "is no architecture"),
        ("", "is no architecture"),
    ],
)
def test_mistakes_say_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises((ArchitectureError, UnknownName)) as error:
        Architecture.parse(text)

    assert said in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": "b", "ratio": 4},
        {"width": "B", "ratio": 0},
        {"width": "B", "ratio": 4, "attention": "none"},
        {"width": "B", "ratio": 4, "scorer": "shared"},
    ],
)
def test_choices_take_known_values_only(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArchitectureError, match="must be"):
        StageChoice(**wrong)
