"""The command line: one file a command. Nothing below prints, exits or owns a console.

Every command ends in words: with exit code 2 after a mistake or where the machine refuses
something, with 130 after Ctrl-C or SIGTERM. A second one of these ends the process at once.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import NoReturn

from afi_search.errors import UserError, lacks_memory, refusal
from afi_search.formatting import printable, shortened
from afi_search.search.stopping import SECONDS_OF_ONE

GOES_ON = "Nothing is lost; the same command resumes it."
AGAIN = "Ctrl-C again stops at once."
_INTERRUPTED = 130
_PAIR = "torch and torchvision do not belong together: install both anew, in one command"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


def _tell() -> None:
    _write(f"\nStopping. {AGAIN}")


@dataclass
class _Stop:
    """Whether a person has asked to stop, who tells that it is on its way, and whether it ended."""

    asked: bool = False
    raised: bool = False
    tell: Callable[[], None] = _tell
    ended: bool = False


_stop = _Stop()
_telling = threading.Lock()


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
            if _stop.asked or isinstance(error, KeyboardInterrupt):
                with _telling:
                    _stop.ended = True
                _end(f"Interrupted. {GOES_ON}", _INTERRUPTED)
            if isinstance(error, OSError):
                _end(f"error: {refusal(error)}", 2)
            if "Symlink loop" in str(error):  # pathlib's words, too
                _end(f"error: {error}", 2)
            if "home directory" in str(error):  # pathlib's words, or platformdirs', at an import
                _end("error: there is no home folder; name one that can be written in HOME", 2)
            if "torchvision::" in str(error):  # it was built for another PyTorch than is installed
                _end(f"error: {error}; {_PAIR}", 2)
            if "start new thread" in str(error):
                _end("error: this user or container may start no more threads (`ulimit -u`)", 2)
            if lacks_memory(error):
                _end("error: there is not enough memory", 2)
            raise


@contextmanager
def told_to_stop(tell: Callable[[], None]) -> Iterator[None]:
    """Within it, `tell` says that the command is stopping: at once, in a thread of its own."""
    before, _stop.tell = _stop.tell, tell
    try:
        yield
    finally:
        _stop.tell = before


def is_stopping() -> bool:
    """Return whether a person, or what ends the process, has asked for that."""
    return _stop.asked


def end_at_once(words: str, code: int) -> NoReturn:
    """End the process from any thread, whatever the main one waits for."""
    if sys.stdout.isatty():
        os.write(1, _SHOW_CURSOR)
    sys.stderr = sys.__stderr__ or sys.stderr  # Rich's writes above the rows that it shows
    _write(words)
    os._exit(code)


@contextmanager
def _signals() -> Iterator[None]:
    """Answer signals in a thread, as the main one may be in C, where it hears of none."""
    in_charge = threading.current_thread() is threading.main_thread()
    if not in_charge or signal.getsignal(signal.SIGINT) is _interrupt:
        yield
        return
    _stop.ended = False
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    threading.Thread(target=_answer, args=(reading,), daemon=True).start()
    unraisable, sys.unraisablehook = sys.unraisablehook, _swallowed
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        os.close(writing)
        _stop.asked = _stop.raised = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    _stop.asked = True
    if not _stop.raised:  # a second one ends the process in `_answer`
        _stop.raised = True
        raise KeyboardInterrupt


def _swallowed(unraisable: sys.UnraisableHookArgs) -> None:
    """End the process where Python drops our KeyboardInterrupt, as it does in callbacks.

    Those of its imports may keep their lock then, so that other threads would wait for ever.
    """
    if _stop.raised and isinstance(unraisable.exc_value, KeyboardInterrupt):
        end_at_once(f"Interrupted. {GOES_ON}", _INTERRUPTED)
    sys.__unraisablehook__(unraisable)


def _answer(reading: int) -> None:
    """Tell of the first signal, and end the process at one that comes after the telling.

    What comes within `SECONDS_OF_ONE` is the first, told twice.
    """
    with open(reading, "rb", buffering=0) as arriving:
        numbers = (byte[0] for byte in iter(partial(arriving.read, 1), b""))
        asked = (number for number in numbers if number in _SIGNALS)
        if next(asked, None) is None:
            return
        _stop.asked = True
        time.sleep(SECONDS_OF_ONE)
        os.set_blocking(reading, False)
        if arriving.read(select.PIPE_BUF) == b"":  # the command has ended
            return
        os.set_blocking(reading, True)
        threading.Thread(target=_tell_once, daemon=True).start()
        if next(asked, None) is not None:
            end_at_once("Stopped at once. The same command resumes it.", _INTERRUPTED)


def _tell_once() -> None:
    """Tell of the first signal, which may take longer than the next one takes to arrive."""
    with _telling:
        if not _stop.ended:
            _stop.tell()


os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # it shares the pipe


def _end(words: str, code: int) -> NoReturn:
    with suppress(OSError):
        sys.stdout.flush()
    _write(words)
    sys.exit(code)


def _write(words: str) -> None:
    with suppress(OSError):
        line = f"{shortened(printable(words))}\n"
        sys.stderr.write(line)  # at once: two threads may end in words
        sys.stderr.flush()
