"""Strict types for values of YAML files; every number has bounds.

`true` is not 1, `"3"` is not 3, `.inf` is no number, and what is larger than anything of use is
refused where it is written, not where it overflows.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from afi_search.errors import UserError
from afi_search.space.mistakes import describe, explain, show

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_NAME = 100
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class Strict(BaseModel):
    """A part of a file: unknown keys are mistakes, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def given(self, **settings: object) -> Self:
        """Return it with those settings that are not None, checked as in a file (UserError)."""
        paths = {name: str(value) for name, value in settings.items() if isinstance(value, Path)}
        given = {name: value for name, value in settings.items() if value is not None} | paths
        try:
            return type(self).model_validate(dict(self) | given)
        except ValidationError as error:
            section = type(self).__name__.lower()
            raise UserError(describe(section, explain(error, type(self)))) from None


def check_name(text: str) -> str:
    """Return a name that may stand in paths, URLs, metrics and commands: else a ValueError.

    >>> check_name("resnet32-cifar100.v2")
    'resnet32-cifar100.v2'
    """
    if not _NAME.fullmatch(text) or len(text) > _LONGEST_NAME:
        raise ValueError(
            f"{show(text)} is no name; write up to {_LONGEST_NAME} letters, digits, '.', '_' and "
            f"'-', the first a letter or a digit"
        )
    return text


def _read_quotient(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]{1,9})\s*/\s*([1-9][0-9]{0,8})", value)
    return int(found[1]) / int(found[2]) if found else value


def _read_count(value: Any) -> Any:
    if not isinstance(value, str):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([kKmMgG]?)", value)
    if found is None:
        raise ValueError(f"{show(value)} must be a whole number, like 80M or 470k")
    return round(float(found[1]) * _UNITS[found[2].lower()])


Name = Annotated[str, AfterValidator(check_name)]
Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True, le=10**9)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Number = Annotated[float, Field(strict=True, ge=-1e9, le=1e9, allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, le=1), BeforeValidator(_read_quotient)]
"""A number from 0 to 1, which can be written like `30/90`."""
Count = Annotated[int, Field(strict=True, gt=0, le=10**18), BeforeValidator(_read_count)]
"""A whole number, which can be written like `80M`, `0.7m` or `470k`."""
PrecisionSetting = Literal["auto", "fp32", "bf16"]
"""Of a training's numbers; `auto`: what the device is faster in, or has instructions for."""
