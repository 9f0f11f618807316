"""The code blocks of the README and of docs/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docker/*.md", "studies/*.md", "studies/*/README.md")
    for path in ROOT.glob(pattern)
)
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, where in it, its language, its attributes and its text."""

    page: Path
    line: int
    language: str
    attributes: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def title(self) -> str:
        """The name of the file that the block is to be saved as; empty where it is none."""
        found = re.search(r'title="([^"]+)"', self.attributes)
        return found[1] if found else ""


def blocks(page: Path) -> list[Block]:
    """Return a page's blocks, in order, without those that are included from a file."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2], found[3])
        for found in _BLOCK.finditer(text)
        if "--8<--" not in found[3]
    ]


def of_language(language: str) -> list[Block]:
    """Return all pages' blocks in a language."""
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def commands(block: Block) -> list[str]:
    """Return the command lines of a block, without comments, continued lines joined."""
    joined = block.text.replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [part.strip() for line in lines if line for part in line.split("&&")]
