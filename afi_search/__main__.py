"""The command line: `python -m afi_search` is the same program as `afi-search`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

from afi_search.cli import in_words


def main(program: str = "main") -> None:
    """Run a program of `afi_search.cli.main`, end in words, and leave nobody waiting at the end."""
    _open_streams()
    os.environ["MPLBACKEND"] = "agg"  # pictures are files, whatever a notebook asks for
    code: object = 0
    try:
        with in_words():
            from afi_search.cli import main as programs

            try:
                getattr(programs, program)()
            except SystemExit as ended:
                if ended.code:
                    with suppress(OSError):  # which is told already, if it is why this ends
                        sys.stdout.flush()
                    raise
            sys.stdout.flush()
    except SystemExit as ended:
        code = ended.code
    os._exit(code if isinstance(code, int) else bool(code))  # Ray would take seconds to clean up


def _open_streams() -> None:
    """Let all be printed that a terminal cannot show; open what was closed, to nowhere."""
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # the next file that is opened would be taken for one of them
    os.close(nowhere)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, TextIOWrapper)
        stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
