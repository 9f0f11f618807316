"""The front of a study as it grows, trial by trial."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from optuna.trial import FrozenTrial, TrialState

from afi_search.study.hypervolume import accuracy_up
from afi_search.study.records import curve


class Front:
    """The non-dominated among the complete trials seen so far, each architecture once.

    Args:
        costs: the objectives but for the accuracy; MACs where there are none.
    """

    def __init__(self, costs: Sequence[str]) -> None:
        self._costs = tuple(costs) or ("macs",)
        self._points: dict[str, tuple[float, ...]] = {}

    def __len__(self) -> int:
        return len(self._points)

    @property
    def points(self) -> np.ndarray:
        """N x (1 + costs): accuracy and costs."""
        return np.array(list(self._points.values())).reshape(-1, 1 + len(self._costs))

    def take(self, trial: FrozenTrial) -> None:
        """Take notice of a trial; only complete ones count."""
        if trial.state != TrialState.COMPLETE:
            return
        architecture, accuracy = trial.user_attrs["architecture"], curve(trial)[-1]
        known = self._points.get(architecture)
        if known is not None and known[0] >= accuracy:
            return
        self._points[architecture] = (
            accuracy,
            *(float(trial.user_attrs[name]) for name in self._costs),
        )
        points = self.points
        stay = moocore.is_nondominated(
            points, maximise=accuracy_up(points.shape[1]), keep_weakly=True
        )
        self._points = {
            name: point
            for (name, point), stays in zip(self._points.items(), stay, strict=True)
            if stays
        }
