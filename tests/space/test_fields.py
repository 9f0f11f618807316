"""What pydantic would let through: values of another kind, and numbers without bounds."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from afi_search.model.model import Facts
from afi_search.space.fields import check_name
from afi_search.space.recipe import ImageNetRecipe
from afi_search.space.schema import SpaceFile

HUGE = 18446744073709551616
SHORT = ("macs", "params", "memory", "memory_per_trial")  # can be written like 80M


def models(annotation: object) -> set[type[BaseModel]]:
    """Return the models that an annotation is made of, and those within them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.values()
        return {annotation}.union(*(models(field.annotation) for field in fields))
    return set().union(*map(models, get_args(annotation)))


WRITTEN = sorted(
    models(SpaceFile) | {ImageNetRecipe} | models(Facts), key=lambda model: model.__name__
)
FIELDS = [(model, name) for model in WRITTEN for name in model.model_fields]


def takes(model: type[BaseModel], name: str, value: object) -> bool:
    """Whether a field takes a value, whatever is wrong besides."""
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return not any(details["loc"][:1] == (name,) for details in error.errors())
    return True


def numbers_of(model: type[BaseModel], name: str) -> list[object]:
    """Return numbers that the field takes, or lists of one."""
    numbers: list[object] = [0.5, 1, 2, 9, 10**9]
    return [v for v in (*numbers, *([n] for n in numbers)) if takes(model, name, v)]


def test_most_fields_are_looked_at() -> None:
    assert sum(bool(numbers_of(*field)) for field in FIELDS) >= 50


@pytest.mark.parametrize(("model", "name"), FIELDS)
def test_every_number_is_a_number_and_has_bounds(model: type[BaseModel], name: str) -> None:
    good = numbers_of(model, name)
    wrong: list[object] = [True, math.inf, -math.inf, math.nan, HUGE, -HUGE, 1e300, [[1]]]
    if name not in SHORT:
        wrong.append("3")
    for value in wrong if good else ():
        assert not takes(model, name, [value] if isinstance(good[0], list) else value), value


@pytest.mark.parametrize("name", ["resnet32-cifar100-smoke", "a", "2024-13", "v1.2_x", "a..b"])
def test_what_is_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/x", "a/b", "a\\b", "a\n", "exp::2", "-x", "a b", "é", "a" * 101],
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no name; write up to 100 letters"):
        check_name(name)
