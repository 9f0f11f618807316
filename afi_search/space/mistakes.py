"""Mistakes in what a person wrote: where each is, and what would be right.

Space files, recipes and model cards are all checked by pydantic; its errors are worded here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from afi_search.errors import did_you_mean
from afi_search.formatting import shortened
from afi_search.space.document import Document, KeyPath

_MUST_BE = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text; quote it",
}
"""By the kind of pydantic's error."""


@dataclass(frozen=True)
class Mistake:
    """One mistake: the keys that lead to it, and what would be right."""

    path: KeyPath
    message: str

    def __str__(self) -> str:
        where = ".".join(str(key)[:100] for key in self.path) or "the file"
        return f"{where}: {shortened(self.message)}"


def explain(error: ValidationError, model: type[BaseModel], *below: str) -> Iterator[Mistake]:
    """Yield what pydantic found in the input of `model`, which lies under the keys `below`."""
    for details in error.errors():
        if details["type"] == "too_short" and details["input"]:
            continue  # what is in it is wrong, and told by itself
        path = tuple(part for part in details["loc"] if part != "[key]")
        yield Mistake((*below, *path), _message(details, path, model))


def describe(source: Document | str, mistakes: Iterable[Mistake]) -> str:
    """Return the mistakes, each once, as lines `FILE:LINE: KEY: MESSAGE`, in the order of the file.

    Of a file whose lines are not known, `source` is the name.

    >>> describe("card.json", [Mistake(("facts", "seed"), "is missing")])
    'card.json: facts.seed: is missing'
    """
    if isinstance(source, str):
        return "\n".join(dict.fromkeys(f"{source}: {mistake}" for mistake in mistakes))
    lines = sorted(((source.line(each.path), each) for each in mistakes), key=lambda pair: pair[0])
    return "\n".join(dict.fromkeys(f"{source.name}:{line}: {each}" for line, each in lines))


def show(value: Any) -> str:
    """Return a value as it stands in a message, shortened."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unknown_key(key: object, known: Iterable[str], renamed: str | None = None) -> str:
    """Say that a key is unknown, and which there are; `renamed` is its name since."""
    keys = list(known)
    hint = f" Did you mean {renamed!r}?" if renamed else did_you_mean(str(key), keys)
    return f"unknown key.{hint} There are: {', '.join(keys)}"


def _message(details: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    match kind:
        case "extra_forbidden":
            renamed = getattr(_model_at(model, path[:-1]), "renamed", {}).get(path[-1])
            return unknown_key(path[-1], _keys(model, path[:-1]), renamed)
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            options = re.findall(r"'([^']*)'", context["expected"])
            rule = f"must be one of {', '.join(options)}.{did_you_mean(str(value), options)}"
        case "model_type" | "dict_type" | "model_attributes_type":
            keys = _keys(model, path)
            rule = f"must be a mapping{' of ' if keys else ''}{', '.join(keys)}"
        case "tuple_type":
            shown = show(value)
            rule = f"must be a list, like [{shown[1:-1] if isinstance(value, str) else shown}]"
        case "too_short":
            rule = "must list at least one"
        case _ if kind in _MUST_BE:
            rule = f"must be {_MUST_BE[kind]}"
        case _:
            told = details["msg"].replace("Input should be", "must be")
            rule = f"{told[0].lower()}{told[1:]}"
    return f"{show(value)} {rule}"


def _keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    found = _model_at(model, path)
    return list(found.model_fields) if found is not None else []


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """Return the model of the mapping at a path below `model`; None where there is none."""
    annotation: Any = model
    for part in path:
        found = _first_model(annotation)
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif found is None or part not in found.model_fields:
            return None
        else:
            annotation = found.model_fields[part].annotation
    return None if get_origin(annotation) is dict else _first_model(annotation)


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _first_model(arg))), None)
