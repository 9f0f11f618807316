"""How a run is asked to stop: by a person, or because of something that is wrong."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SECONDS_OF_ONE = 0.1
"""A program that ends this one may tell it twice, by itself and as a member of its group."""


@dataclass
class StopRequest:
    """Whether the run is to stop, and the reason where it is not a person's wish.

    Attributes:
        then: called when it is asked for first, in a thread of its own.
        asked: whether it is to stop.
        reason: what is wrong with the machine; empty where a person asked.
    """

    then: Callable[[], None] = lambda: None
    asked: bool = False
    reason: str = ""

    def ask(self) -> None:
        """Ask for it."""
        if not self.asked:
            self.asked = True
            threading.Thread(target=self.then, daemon=True).start()

    def break_off(self, reason: str) -> None:
        """Ask for it because of something that is wrong with the machine and not with a trial."""
        self.reason = self.reason or reason
        self.ask()

    @contextmanager
    def if_the_ledger_fails(self) -> Iterator[None]:
        """Within it, break off where the ledger cannot be written, read or used."""
        from optuna.exceptions import StorageInternalError

        from afi_search.study.journal import StorageError

        try:
            yield
        except (OSError, StorageInternalError, StorageError) as error:
            from afi_search.study.database import cause

            self.break_off(f"the ledger cannot be written: {cause(error)}")
        except RecursionError:  # Optuna goes from generation to generation
            self.break_off("the ledger has trials of generations that no sampler can go through")

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within it, Ctrl-C and SIGTERM ask for it; a second one is a KeyboardInterrupt.

        Signals reach the main thread alone; in others, nobody asks.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        settled: float | None = None

        def ask(number: int, frame: FrameType | None) -> None:
            nonlocal settled
            if settled is None:
                settled = math.inf
                self.ask()
                settled = time.monotonic() + SECONDS_OF_ONE
            elif time.monotonic() > settled:
                raise KeyboardInterrupt

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
