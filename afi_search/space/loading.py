"""Reading a space file: once, with every mistake in it and in its presets.

A file is named by its path, or by the name of one of those that come with the package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from afi_search.errors import UserError, did_you_mean
from afi_search.space.checks import CHECKS
from afi_search.space.document import Document
from afi_search.space.mistakes import Mistake, describe, explain, show
from afi_search.space.schema import SpaceFile

_SECTIONS = ("data", "recipe", "search", "confirm")


class SpaceFileError(UserError):
    """A space file that cannot be used; the message lists every mistake in it."""


def shipped_spaces() -> dict[str, Path]:
    """Return the space files that come with the package, by name."""
    package = Path(__file__).parents[1]
    of_wheel, of_checkout = package / "spaces", package.parent / "spaces"
    folder = of_wheel if of_wheel.is_dir() else of_checkout
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_space(place: str | Path) -> Path:
    """Return `place`, a path, or that of the space file which is shipped under that name."""
    path, shipped = Path(place), shipped_spaces()
    if path.is_file() or (os.path.lexists(path) and str(place) not in shipped):
        return path
    if str(place) in shipped:
        return shipped[str(place)]
    beside = [p.name for p in path.parent.glob("*.yaml")]
    raise SpaceFileError(
        f"{path}: there is no such file.{did_you_mean(path.name, [*beside, *shipped])} "
        f"These come with the package: {', '.join(shipped)}"
    )


@dataclass(frozen=True)
class SpaceDocument:
    """A space file that is right: `plain`, without any preset, and with each put in place.

    `path` stands in messages, `notes` say what a preset's numbers are good for, and `raw` is what
    is written, by preset; None for none.
    """

    path: Path
    plain: SpaceFile
    presets: Mapping[str, SpaceFile]
    notes: Mapping[str, str]
    raw: Mapping[str | None, Mapping[Any, Any]]

    @classmethod
    def read(cls, path: str | Path) -> SpaceDocument:
        """Read a space file by its path, or by its name if it comes with the package.

        Raises:
            SpaceFileError: the file cannot be read, or has mistakes; the message tells all of them.

        >>> list(SpaceDocument.read("resnet").presets)
        ['smoke', 'laptop', 'short', 'paper']
        """
        path = find_space(path)
        document = Document.read(path, SpaceFileError)
        raw = document.data
        if not isinstance(raw, dict):
            raise SpaceFileError(f"{path}: must be a mapping, like 'backbone: resnet32'")
        if "imports" in raw:
            folder = Path(path).parent / str(raw.get("imports_from", ""))
            raw = {**raw, "imports_from": str(folder.absolute())}
        plain, mistakes = _check(raw)
        presets: dict[str, SpaceFile] = {}
        merged = dict(_with_presets(raw))
        for name, with_preset in merged.items():
            presets[name], more = _check(with_preset)
            new = (mistake for mistake in more if mistake not in mistakes)
            mistakes += [Mistake(("presets", name, *each.path), each.message) for each in new]
        if mistakes:
            raise SpaceFileError(describe(document, mistakes))
        notes = {name: " ".join(preset.note.split()) for name, preset in plain.presets.items()}
        plain = plain.model_copy(update={"presets": {}})
        return cls(path, plain, presets, notes, {None: raw, **merged})

    def resolve(
        self, preset: str | None = None, settings: Mapping[str, Any] | None = None
    ) -> SpaceFile:
        """Return the file with the settings of a preset, or as it is.

        `settings` come before those of preset and file: `recipe.epochs` -> 3. A SpaceFileError says
        that there is no such preset, or that a setting is wrong.
        """
        if preset is not None and preset not in self.presets:
            there_are = f"There are: {', '.join(self.presets)}"
            raise SpaceFileError(
                f"{self.path}: there is no preset {preset!r}.{did_you_mean(preset, self.presets)} "
                f"{there_are if self.presets else 'The file has no presets'}"
            )
        if not settings:
            return self.plain if preset is None else self.presets[preset]
        raw = {key: value for key, value in self.raw[preset].items() if key != "presets"}
        for key, value in settings.items():
            raw = _with_setting(raw, key.split("."), value)
        file, mistakes = _check(raw)
        if mistakes:
            raise SpaceFileError(describe("--set", mistakes))
        return file


def _with_setting(raw: Mapping[Any, Any], path: Sequence[str], value: Any) -> dict[Any, Any]:
    """Return a file's mapping with the value under that path of keys."""
    key = next((key for key in raw if str(key) == path[0]), path[0])
    if len(path) > 1:
        below = raw.get(key) or {}
        if not isinstance(below, Mapping):
            raise SpaceFileError(
                f"--set: {'.'.join(path)}: {key} is {show(below)}; set {key} itself"
            )
        value = _with_setting(below, path[1:], value)
    return {**raw, key: value}


def _check(raw: Mapping[Any, Any]) -> tuple[SpaceFile, list[Mistake]]:
    """Return what is right of a file, and the mistakes: of each part, and between right parts."""
    mistakes: list[Mistake] = []
    wrong: frozenset[str] = frozenset()
    try:
        file = SpaceFile.model_validate(raw)
    except ValidationError as error:
        mistakes = list(explain(error, SpaceFile))
        wrong = frozenset(str(mistake.path[0]) for mistake in mistakes)
        right = {k: v for k, v in raw.items() if isinstance(k, str) and k not in wrong}
        file = SpaceFile.model_validate(right)
    for parts, check in CHECKS:
        if not wrong & set(parts):
            mistakes += check(file)
    return file, mistakes


def _with_presets(raw: Mapping[Any, Any]) -> Iterator[tuple[Any, dict[Any, Any]]]:
    """Yield each preset's name and the file with it in place, where it can be put there."""
    presets = raw.get("presets")
    plain = {key: value for key, value in raw.items() if key != "presets"}
    for name, preset in presets.items() if isinstance(presets, dict) else ():
        sections = [key for key in _SECTIONS if isinstance(preset, dict) and key in preset]
        if all(isinstance(preset[key], dict) for key in sections):
            before = {key: raw.get(key) or {} for key in sections}
            merged = (key for key in sections if isinstance(before[key], dict))
            yield name, plain | {key: {**before[key], **preset[key]} for key in merged}
