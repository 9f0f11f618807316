"""Errors that the user can cause and correct: printed without a traceback, exit code 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in what the user wrote or asked for; the command line prints it and exits with 2.

    The message names the file, the key, the value and what would be right.
    """


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the option closest to `word`, or "" where none is close.

    >>> did_you_mean("resnet33", ["resnet32", "mobilenetv2"])
    " Did you mean 'resnet32'?"
    """
    by_lower_case = {option.lower(): option for option in options}
    close = get_close_matches(word.lower(), list(by_lower_case), n=1, cutoff=0.6)
    close = close or [option for option in by_lower_case if word.lower().startswith(f"{option}_")]
    return f" Did you mean {by_lower_case[close[0]]!r}?" if close else ""
