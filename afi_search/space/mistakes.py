"""Mistakes in what a person wrote: where each is, and what would be right.

Space files, recipes and model cards are all checked by pydantic; its errors are told here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from afi_search.errors import did_you_mean
from afi_search.space.document import Document, KeyPath


@dataclass(frozen=True)
class Mistake:
    """One mistake: the keys that lead to it, and what would be right."""

    path: KeyPath
    message: str


def explain(error: ValidationError, model: type[BaseModel], *below: str) -> Iterator[Mistake]:
    """Yield what pydantic found in the input of `model`, which stands under the keys `below`."""
    for details in error.errors():
        path = tuple(part for part in details["loc"] if part != "[key]")
        yield Mistake((*below, *path), _message(details, path, model))


def describe(source: Document | str, mistakes: Iterable[Mistake]) -> str:
    """Return the mistakes as lines `FILE:LINE: KEY: MESSAGE`, in the order of the file.

    Args:
        source: the document, or the name of a file whose lines are not known.
        mistakes: each is told once.
    """
    if isinstance(source, str):
        return "\n".join(dict.fromkeys(f"{source}: {_told(one)}" for one in mistakes))
    ordered = sorted(mistakes, key=lambda mistake: source.line(mistake.path))
    return "\n".join(
        dict.fromkeys(f"{source.name}:{source.line(one.path)}: {_told(one)}" for one in ordered)
    )


def show(value: Any) -> str:
    """Return a value as it stands in a message, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unknown_key(key: object, known: Iterable[str], renamed: str | None = None) -> str:
    """Return what to say of a key that there is not; `renamed` is what it is called now."""
    keys = list(known)
    hint = f" Did you mean {renamed!r}?" if renamed else did_you_mean(str(key), keys)
    return f"unknown key.{hint} There are: {', '.join(keys)}"


def _told(mistake: Mistake) -> str:
    return f"{'.'.join(map(str, mistake.path)) or 'the file'}: {mistake.message}"


def _message(details: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    value, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            keys, key = _keys(model, path[:-1]), str(path[-1])
            renamed = getattr(_model_at(model, path[:-1]), "renamed", {}).get(key)
            return unknown_key(key, keys, renamed)
        case "literal_error":
            options = re.findall(r"'([^']*)'", context["expected"])
            hint = did_you_mean(str(value), options)
            return f"{show(value)} must be one of {', '.join(options)}.{hint}"
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "model_type" | "dict_type" | "model_attributes_type":
            keys = _keys(model, path)
            return f"{show(value)} must be a mapping{' of ' if keys else ''}{', '.join(keys)}"
        case "int_parsing" | "int_type" | "int_from_float":
            return f"{show(value)} must be a whole number"
        case "float_parsing" | "float_type":
            return f"{show(value)} must be a number"
        case "bool_parsing" | "bool_type":
            return f"{show(value)} must be true or false"
        case "string_type":
            return f"{show(value)} must be a text; quote it"
        case "tuple_type":
            return f"{show(value)} must be a list, like [{value}]"
        case _:
            rule = details["msg"].replace("Input should be", "must be")
            return f"{show(value)} {rule[0].lower()}{rule[1:]}"


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
