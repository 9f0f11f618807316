"""The command line: one file a command. Nothing below prints, exits or owns a console."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from afi_search.errors import UserError

P = ParamSpec("P")


def exits_on_mistake(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command print a UserError on stderr and exit with 2, without a traceback."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return guarded
