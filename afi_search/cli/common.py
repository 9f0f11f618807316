"""What the commands share: the console, options, and words at the end."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from afi_search.cli import in_words
from afi_search.errors import UserError
from afi_search.files import plain
from afi_search.formatting import printable, with_names

SpaceFile = Annotated[
    Path, typer.Argument(help="A space file, or one that `spaces` lists, by name.")
]
Preset = Annotated[
    str,
    typer.Option(
        help="A preset of the space file; 'auto': 'short' where there is a CUDA device, 'smoke' "
        "where there is none; 'none': the file as it is."
    ),
]
StudyFolder = Annotated[
    Path, typer.Argument(help="A study's folder, like studies/resnet32-cifar100.")
]
Data = Annotated[
    str | None,
    typer.Option(help="The folder of the data sets, before the file's and AFI_SEARCH_DATA."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="HOST:PORT of a Ray cluster to join; 'auto': the one that `ray start` started here."
    ),
]
Checkpoints = Annotated[
    str | None,
    typer.Option(
        help="A folder or fsspec URL for the checkpoints that all machines of a cluster reach, "
        "like s3://bucket/folder; the study's folder otherwise."
    ),
]
Imports = Annotated[
    bool,
    typer.Option("--imports", help="Run the modules that the study's `imports:` names."),
]


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


WIDE = 10_000
"""Letters in which every table finds room."""


class Command(TyperCommand):
    """A command that ends in words."""

    def invoke(self, ctx: Any) -> Any:
        with in_words():
            return super().invoke(ctx)


class Computes(Command):
    """A command that computes: it asks what the machine and Ray allow before it imports more."""

    def invoke(self, ctx: Any) -> Any:
        with in_words():
            from afi_search.engine import room

            starts_ray = ctx.params.get("address", "") is None
            if short := room.too_little() if starts_ray else room.cannot_load():
                raise UserError(short)
            if (address := ctx.params.get("address")) is not None:
                from afi_search.engine.ray_session import find_cluster

                find_cluster(address)
            return super().invoke(ctx)


class PlainConsole(Console):
    """A console on which text is text: no markup, nothing cut off, and nothing told twice."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False, highlight=False)
        self._width, self._height = self._width or None, self._height or None  # COLUMNS=0

    def __exit__(self, *raised: Any) -> None:
        around = self._buffer_index - 1
        try:
            super().__exit__(*raised)
        except BaseException:  # Ctrl-C, after the writing, perhaps: nothing is written twice
            self._buffer_index = around
            if around == 0:
                self._buffer.clear()
            raise

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def say(self, *lines: str, style: str = "") -> None:
        """Print lines that the terminal wraps, so that paths and commands can be copied."""
        for line in lines:
            self.print(line, style=style, soft_wrap=True)

    def prose(self, text: str) -> None:
        """Print sentences that hold nothing to be copied: a terminal's lines end between words."""
        self.print(text, soft_wrap=not self.is_terminal)

    def table_of(self, rows: Sequence[Mapping[str, Any]], json: bool) -> None:
        """Print rows, which all have the same names: as JSON, or as a table of their texts.

        Where a table would break names, each row is a paragraph instead.
        """
        if json:
            print(dumps(plain(list(rows)), indent=2, ensure_ascii=False))
            return
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        names = list(rows[0]) if rows else []
        texts = [[*map(_text, row.values())] for row in rows]
        for name, *cells in zip(names, *texts, strict=True):
            figures = all(re.match(r"[-+\d]|$", cell) for cell in cells)
            looks: dict[str, Any] = {"no_wrap": not any(" " in cell for cell in cells)}
            if figures:
                looks = {"justify": "right", "min_width": max(map(len, cells))}
            table.add_column(name, overflow="fold", **looks)
        for line in texts:
            table.add_row(*line)
        needed = Measurement.get(self, self.options.update(width=WIDE), table).minimum
        if needed <= self.width or len(names) == 2:
            self.print(table)
            return
        for first, *others in texts:
            self.say(first)
            self.print(Padding(with_names(zip(names[1:], others, strict=True)), (0, 0, 1, 2)))

    def written(self, paths: Iterable[object]) -> None:
        """Name the files that were written."""
        self.say("Written:", *(f"  {path}" for path in paths))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


console = PlainConsole()


class _Said(logging.Handler):
    """Prints what the package logs while something takes long, like a download."""

    def emit(self, record: logging.LogRecord) -> None:
        console.say(record.getMessage())


_log = logging.getLogger("afi_search.data")
_log.setLevel(logging.INFO)
_log.addHandler(_Said())
