"""The command line: one file a command. Nothing below prints, exits or owns a console.

Every command ends in words: with exit code 2 after a mistake or where the machine refuses
something, with 130 after Ctrl-C or SIGTERM. A second one of these ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from afi_search.errors import UserError
from afi_search.formatting import printable

INTERRUPTED = 130
_SHOW_CURSOR = b"\x1b[?25h"
_asked_to_stop = False


@contextmanager
def in_words() -> Iterator[None]:
    """Run a command, or what imports it, so that it ends in words; it may be nested."""
    with _signals():
        try:
            yield
        except UserError as error:
            _end(f"error: {error}", 2)
        except BrokenPipeError:  # who has read our output has gone: there is no one to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(2)
        except (Exception, KeyboardInterrupt) as error:
            if _asked_to_stop or isinstance(error, KeyboardInterrupt):
                _end("Interrupted. Nothing is lost; the same command resumes it.", INTERRUPTED)
            if isinstance(error, OSError):
                _end(f"error: {_refusal(error)}", 2)
            if "determine home directory" in str(error):  # pathlib's words, at Ray's import
                _end("error: there is no home folder; name one that can be written in HOME", 2)
            if isinstance(error, MemoryError):
                _end("error: there is not enough memory", 2)
            raise


def stop_was_asked() -> None:
    """Note that what runs is stopping already: from now on, a signal ends the process at once."""
    global _asked_to_stop
    _asked_to_stop = True


@contextmanager
def _signals() -> Iterator[None]:
    global _asked_to_stop
    handled = (signal.SIGINT, signal.SIGTERM)
    in_charge = threading.current_thread() is threading.main_thread()
    if not in_charge or signal.getsignal(signal.SIGINT) is _stop:
        yield
        return
    before = {number: signal.signal(number, _stop) for number in handled}
    try:
        yield
    finally:
        _asked_to_stop = False
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    if _asked_to_stop:
        if sys.stdout.isatty():
            os.write(1, _SHOW_CURSOR)
        os._exit(INTERRUPTED)  # Linux ends Ray's processes with it
    stop_was_asked()
    with suppress(OSError):  # not print: what is interrupted may be printing
        os.write(2, b"\nStopping; Ctrl-C again stops at once.\n")
    raise KeyboardInterrupt


def _end(words: str, code: int) -> None:
    print(printable(words), file=sys.stderr)
    sys.exit(code)


def _refusal(error: OSError) -> str:
    """Say which file the machine refuses, and why."""
    if error.filename is None or error.strerror is None:
        return str(error) or type(error).__name__
    return f"{os.fsdecode(error.filename)}: {error.strerror}"
