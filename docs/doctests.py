"""Shows the examples of docstrings as code: griffe knows them under a heading only."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)(>>> .*(?:\n\1\S.*|\n\1 +\S.*)*)", re.MULTILINE)
_DIRECTIVE = re.compile(r"\s*# doctest: .*")


def fenced(text: str) -> str:
    r"""Return a docstring whose doctests stand in fences.

    >>> fenced("Add.\n\n>>> 1 + 1  # doctest: +SKIP\n2")
    'Add.\n\n```pycon\n>>> 1 + 1\n2\n```'
    """
    return _DIRECTIVE.sub("", _EXAMPLE.sub(r"\1```pycon\n\1\2\n\1```", text))


class Doctests(griffe.Extension):
    """Puts the doctests of every docstring in fences when it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
