"""A YAML file that a person wrote: plain values, and the line of each key.

YAML 1.2, in which `off` is a word. What YAML allows and no such file needs is refused: aliases that
multiply, values that are dates, keys that are no scalars.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from afi_search.errors import UserError

KeyPath = tuple[Any, ...]

_MOST_BYTES, _MOST_VALUES = 1_000_000, 20_000
_TOO_MANY = f"the file has more than {_MOST_VALUES:,} values"
_MOST_BITS = 256
_MOST_LEVELS = 50
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")
"""All but the bytes of paths that are no UTF-8, as Python keeps them."""
_MERGE = "tag:yaml.org,2002:merge"
_SCALARS = {
    f"tag:yaml.org,2002:{tag}": word
    for tag, word in {
        "null": "nothing",
        "bool": "true or false",
        "int": "a whole number",
        "float": "a number",
        "str": "a text",
    }.items()
}


@dataclass(frozen=True)
class Document:
    """A file's values, as Python's own, and where they stand.

    `lines` has the line, from 1, of each path of keys and positions; `name` stands in messages.
    """

    name: str
    data: Any
    lines: Mapping[KeyPath, int]

    @classmethod
    def read(cls, path: str | Path, error: type[UserError]) -> Document:
        """Read a file; an `error` says why it cannot be read or is not such YAML."""
        try:
            if Path(path).is_fifo():
                raise ValueError("it is a pipe, and no file")
            with Path(path).open("rb") as stream:
                content = stream.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
            text = content.decode()
        except UnicodeDecodeError as reason:
            line = content.count(b"\n", 0, reason.start) + 1
            raise error(f"{path}:{line}: must be UTF-8, and is not") from None
        except (OSError, ValueError) as reason:
            raise error(f"{path}: cannot be read: {reason}") from None
        return cls.parse(text, str(path), error)

    @classmethod
    def parse(cls, text: str, name: str, error: type[UserError]) -> Document:
        """Read a text likewise.

        >>> Document.parse("recipe: {epochs: 3}", "a.yaml", UserError).lines
        {('recipe',): 1, ('recipe', 'epochs'): 1}
        """
        reader, yaml = _Reader(name, error), YAML(typ="safe", pure=True)
        yaml.Composer = _Composer
        try:
            with warnings.catch_warnings():
                # Of anchors with one name, the last one holds, as YAML says.
                warnings.simplefilter("ignore", ReusedAnchorWarning)
                node = yaml.compose(text)
            data = None if node is None else reader.value(node, ())
        except _TooMuch as reason:
            raise error(f"{name}:{reason}") from None
        except MarkedYAMLError as reason:
            line = reason.problem_mark.line + 1 if reason.problem_mark else 1
            raise error(f"{name}:{line}: is not YAML: {reason.problem}") from None
        except ReaderError as reason:
            line = text.count("\n", 0, reason.position) + 1
            unfit = f"a character that no YAML may have: #x{reason.character:04x}"
            raise error(f"{name}:{line}: is not YAML: holds {unfit}") from None
        except (YAMLError, OverflowError, ValueError) as reason:  # "\UFFFFFFFF", "\U00110000"
            raise error(f"{name}: is not YAML: {reason}") from None
        except RecursionError:
            raise error(f"{name}: is nested too deeply") from None
        return cls(name, data, reader.lines)

    def line(self, path: KeyPath) -> int:
        """Return the line of the deepest part of the path that the file has."""
        return next(
            (self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 1
        )


class _TooMuch(Exception):
    """A file has more than any needs; the message is the line and of what."""


class _Composer(Composer):
    """Counts values, keys and levels while a file is read, which takes long for many."""

    count = level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.count += 1
        if self.count > 2 * _MOST_VALUES:
            raise self._too_much(_TOO_MANY)
        self.level += 1
        if self.level > _MOST_LEVELS:
            raise self._too_much("is nested too deeply")
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def _too_much(self, why: str) -> _TooMuch:
        return _TooMuch(f"{self.parser.peek_event().start_mark.line + 1}: {why}")


class _Reader:
    def __init__(self, name: str, error: type[UserError]) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._name, self._error = name, error
        self._constructor = YAML(typ="safe", pure=True).constructor
        self._values = 0

    def value(self, node: Node, path: KeyPath) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise _TooMuch(f"{node.start_mark.line + 1}: {_TOO_MANY}")
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, SequenceNode):
            return [self._below(item, item, (*path, at)) for at, item in enumerate(node.value)]
        assert isinstance(node, MappingNode)
        entries = self._entries(node, path)
        return {name: self._below(key, item, (*path, name)) for name, key, item in entries}

    def _refused(self, node: Node, path: KeyPath, message: str) -> UserError:
        where = f"{'.'.join(map(str, path))}: " if path else ""
        return self._error(f"{self._name}:{node.start_mark.line + 1}: {where}{message}")

    def _below(self, place: Node, node: Node, path: KeyPath) -> Any:
        self.lines[path] = place.start_mark.line + 1
        return self.value(node, path)

    def _entries(self, node: MappingNode, path: KeyPath) -> Iterator[tuple[Any, Node, Node]]:
        """Yield names, keys, values: those merged in by `<<` first, for the others to replace."""
        own: dict[Any, tuple[Any, Node, Node]] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                merged = value.value if isinstance(value, SequenceNode) else [value]
                if not all(isinstance(one, MappingNode) for one in merged):
                    raise self._refused(key, path, "only mappings can be merged with <<")
                for one in reversed(merged):
                    yield from self._entries(one, path)
                continue
            name = self._scalar(key, path) if isinstance(key, ScalarNode) else None
            if type(name) not in (str, int) or not str(name).isprintable():
                raise self._refused(key, path, "a key must be a word or a number")
            if name in own:
                raise self._refused(key, (*path, name), "is not YAML: the key is there twice")
            own[name] = name, key, value
        yield from own.values()

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        told = repr(node.value if len(node.value) <= 40 else f"{node.value[:37]}...")
        if node.tag not in _SCALARS:
            kind = str(node.tag).rpartition(":")[2]
            raise self._refused(
                node, path, f"{told} is read as a {kind}; if it is a text, quote it"
            )
        try:
            value = self._constructor.construct_object(node)
        except (LookupError, ValueError, OverflowError, YAMLError):
            raise self._refused(
                node, path, f"{told} cannot be read as {_SCALARS[node.tag]}"
            ) from None
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise self._refused(node, path, f"{told} is too large a number")
        if isinstance(value, str) and _NO_TEXT.search(value):
            raise self._refused(node, path, f"{told} has characters in it that are no text")
        return value
