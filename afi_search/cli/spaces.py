"""The space files that come with the package: afi-search spaces."""

from __future__ import annotations

import re

from rich import box
from rich.console import Console
from rich.table import Table

from afi_search.cli import exits_on_mistake

console = Console()


@exits_on_mistake
def spaces() -> None:
    """List the space files that come with the package.

    Each can be named instead of a path: afi-search run resnet
    """
    from afi_search.space.loading import shipped_spaces

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("space", no_wrap=True)
    table.add_column("what is searched")
    for name, path in shipped_spaces().items():
        table.add_row(name, first_sentence(path.read_text(encoding="utf-8")))
    console.print(table)


def first_sentence(text: str) -> str:
    """Return the first sentence of the comment that a space file begins with."""
    comment = " ".join(
        line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")
    )
    sentence = re.match(r".*?[.?](?=\s|$)", comment)
    return sentence[0] if sentence else ""
