"""Reading a space file: every mistake in it at once, each with its line and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from afi_search.errors import UserError, did_you_mean
from afi_search.space.checks import PART_CHECKS, Check, Mistake
from afi_search.space.checks import Path as KeyPath
from afi_search.space.schema import RENAMED, SpaceFile


class SpaceFileError(UserError):
    """A space file that cannot be used; the message lists every mistake in it."""


def load_space_file(
    path: str | Path, preset: str | None = None, checks: Iterable[Check] = ()
) -> SpaceFile:
    """Read a space file, with the settings of one of its presets put in place.

    All presets are checked, whichever is taken. The result has no presets of its own. `checks`
    are those of higher layers: (the parts a check looks at, the check).

    Raises:
        SpaceFileError: the file cannot be read, or is wrong anywhere.
    """
    raw = _read_yaml(Path(path))
    every = (*PART_CHECKS, *checks)
    mistakes = [*_mistakes(raw, every), *_preset_mistakes(raw, every)]
    if mistakes:
        by_line = sorted(mistakes, key=lambda mistake: _line(raw, mistake.path))
        lines = dict.fromkeys(_describe(str(path), raw, mistake) for mistake in by_line)
        raise SpaceFileError("\n".join(lines))
    if preset is not None and preset not in (names := list(raw.get("presets", {}))):
        raise SpaceFileError(
            f"{path}: there is no preset {preset!r}.{did_you_mean(preset, names)} "
            f"There are: {', '.join(names) or 'none'}"
        )
    return SpaceFile.model_validate(_with_preset(raw, preset))


def preset_note(path: str | Path, preset: str | None) -> str:
    """Return what the file says the numbers of that preset are good for."""
    chosen = _presets(path).get(preset)
    return " ".join(str(chosen.get("note", "")).split()) if isinstance(chosen, Mapping) else ""


def preset_names(path: str | Path) -> list[str]:
    """Return the names of the file's presets."""
    return [str(name) for name in _presets(path)]


def _presets(path: str | Path) -> Mapping[Any, Any]:
    presets = _read_yaml(Path(path)).get("presets")
    return presets if isinstance(presets, Mapping) else {}


def _read_yaml(path: Path) -> CommentedMap:
    """Read YAML 1.2, where `off` is a word, keeping the line of each key."""
    try:
        raw = YAML().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.yaml")])
        raise SpaceFileError(f"{path}: there is no such file.{near}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceFileError(f"{path}: cannot be read: {error}") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpaceFileError(f"{path}:{line}: is not YAML: {error.problem}") from None
    except YAMLError as error:
        raise SpaceFileError(f"{path}: is not YAML: {error}") from None
    if not isinstance(raw, CommentedMap):
        raise SpaceFileError(f"{path}: must be a mapping, like 'backbone: resnet32'")
    return raw


def _with_preset(raw: Mapping[str, Any], preset: str | None) -> dict[str, Any]:
    merged = {key: value for key, value in raw.items() if key != "presets"}
    if preset is not None:
        for section in ("data", "recipe", "search", "confirm"):
            changes = raw["presets"][preset].get(section)
            before = merged.get(section)
            if isinstance(changes, Mapping) and isinstance(before, Mapping | None):
                merged[section] = {**(before or {}), **changes}
            elif changes is not None:
                merged[section] = changes
    return merged


def _mistakes(raw: Mapping[str, Any], checks: Iterable[Check]) -> Iterator[Mistake]:
    """Yield the mistakes of each part by itself, then those between the parts that are right."""
    wrong: frozenset[str] = frozenset()
    try:
        file = SpaceFile.model_validate(raw)
    except ValidationError as error:
        for details in error.errors():
            yield _explain(details)
        wrong = frozenset(str(details["loc"][0]) for details in error.errors())
        file = SpaceFile.model_validate({k: v for k, v in raw.items() if str(k) not in wrong})
    for needs, check in checks:
        if not wrong & set(needs):
            yield from check(file)


def _preset_mistakes(raw: Mapping[str, Any], checks: Iterable[Check]) -> Iterator[Mistake]:
    """Yield the mistakes that a preset brings into the file, under the preset's own path."""
    presets = raw.get("presets")
    if not isinstance(presets, Mapping):
        return
    before = {(mistake.path, mistake.message) for mistake in _mistakes(raw, checks)}
    for name, preset in presets.items():
        sections = preset.values() if isinstance(preset, Mapping) else ()
        if any(not isinstance(part, Mapping | str | None) for part in sections) or not sections:
            continue
        for mistake in _mistakes(_with_preset(raw, name), checks):
            if (mistake.path, mistake.message) not in before:
                yield Mistake(("presets", name, *mistake.path), mistake.message)


def _explain(details: ErrorDetails) -> Mistake:
    """Say in a person's words what pydantic found."""
    path = _key_path(details["loc"])
    value, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            keys, key = _known_keys(path[:-1]), str(path[-1])
            renamed = RENAMED.get(key) if path[-2:-1] == ("pruner",) else None
            hint = f" Did you mean {renamed!r}?" if renamed else did_you_mean(key, keys)
            message = f"unknown key.{hint} There are: {', '.join(keys)}"
        case "literal_error":
            options = re.findall(r"'([^']*)'", context["expected"])
            message = (
                f"{_show(value)} must be one of {', '.join(options)}."
                f"{did_you_mean(str(value), options)}"
            )
        case "missing":
            message = "is missing"
        case "value_error":
            message = str(context["error"])
        case "model_type" | "dict_type" | "model_attributes_type":
            message = f"{_show(value)} must be a mapping of {', '.join(_known_keys(path))}"
        case "int_parsing" | "int_type" | "int_from_float":
            message = f"{_show(value)} must be a whole number{_count_hint(path)}"
        case "float_parsing" | "float_type":
            message = f"{_show(value)} must be a number"
        case "tuple_type":
            message = f"{_show(value)} must be a list, like [{value}]"
        case _:
            rule = details["msg"].replace("Input should be", "must be")
            message = f"{_show(value)} {rule[0].lower()}{rule[1:]}"
    return Mistake(path, message)


def _count_hint(path: KeyPath) -> str:
    return ", like 80M or 470k" if path[:1] == ("constraints",) else ""


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value.text) if hasattr(value, "text") else repr(_plain(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Any) -> Any:
    if isinstance(value, CommentedMap):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, CommentedSeq) else value


def _key_path(loc: tuple[int | str, ...]) -> KeyPath:
    """Drop from pydantic's location what names a branch of a union or a dictionary's key."""
    path: list[Any] = []
    model: type[BaseModel] | None = SpaceFile
    for part in loc:
        if part == "[key]" or (isinstance(part, str) and re.search(r"[\[\]()]|^int$", part)):
            continue
        if model is not None and part not in model.model_fields and part in ("auto", "literal"):
            continue
        path.append(part)
        model = _model_at(path)
    return tuple(path)


def _known_keys(path: KeyPath | list[Any]) -> list[str]:
    model = _model_at(path)
    return list(model.model_fields) if model is not None else []


def _model_at(path: KeyPath | list[Any]) -> type[BaseModel] | None:
    """Return the model that describes the mapping at that path, or None."""
    model: type[BaseModel] | None = SpaceFile
    inside: Any = None
    for part in path:
        if model is not None and part in model.model_fields:
            inside = model.model_fields[part].annotation
        elif inside is None:
            return None
        model = _first_model(inside)
        if model is not None and not _is_mapping(inside):
            inside = None
    return model


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _first_model(arg))), None)


def _describe(file: str, raw: CommentedMap, mistake: Mistake) -> str:
    keys = ".".join(map(str, mistake.path)) or "the file"
    return f"{file}:{_line(raw, mistake.path)}: {keys}: {mistake.message}"


def _line(raw: CommentedMap, path: KeyPath) -> int:
    """Return the line of the deepest part of the path that the file has, counted from 1."""
    node: Any = raw
    line = 0
    for part in path:
        try:
            if isinstance(node, CommentedMap):
                line = node.lc.key(part)[0]
            elif isinstance(node, CommentedSeq):
                line = node.lc.item(part)[0]
            else:
                break
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
    return line + 1
