"""How far trials are within an epoch: workers tell it and the driver hears it, through Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from typing import Any

from ray import tune
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_initialized,
    _internal_kv_put,
)

_SECONDS_BETWEEN_LOOKS = 1.0


def tell(study: str, number: int, epochs: float, images_per_second: float) -> None:
    """Tell how many epochs of a trial are trained, a part of one among them, and how fast."""
    if _internal_kv_initialized():
        _internal_kv_put(_key(study, number), json.dumps([epochs, images_per_second]))


class Hearing(tune.Callback):
    """Passes on what workers tell, while Tune runs.

    `heard` is called with a trial's number and what `tell` was given.
    """

    def __init__(
        self,
        study: str,
        running: Callable[[], Collection[int]],
        heard: Callable[[int, float, float], None],
    ) -> None:
        self._study, self._running, self._heard = study, running, heard
        self._known: dict[int, bytes] = {}
        self._next = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look what has been told since the last look."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        running = self._running()
        for number in self._known.keys() - set(running):
            _internal_kv_del(_key(self._study, number))
            del self._known[number]
        for number in running:
            told = _internal_kv_get(_key(self._study, number))
            if told is not None and told != self._known.get(number):
                self._known[number] = told
                self._heard(number, *json.loads(told))


def _key(study: str, number: int) -> str:
    return f"afi_search/{study}/{number}"
