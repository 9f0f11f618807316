"""What a person sees while a winner is trained on ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from afi_search.engine.promotion_worker import Probe
from afi_search.promote.estimate import Needs, describe
from afi_search.promote.promotion import PromotionListener
from afi_search.space import Architecture
from afi_search.train import EpochResult


class PromotionScreen(PromotionListener):
    """Prints how a promotion goes.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def front_is_unconfirmed(self, folder: Path) -> None:
        self._console.print(
            f"The front is not confirmed: its most accurate by one seed is taken. To be sure "
            f"first: afi-search confirm {folder}"
        )

    def left_out(self, what: str) -> None:
        self._console.print(f"Left out: {what}", soft_wrap=True, highlight=False, markup=False)

    def begins(self, architecture: Architecture, recipe: str, folder: Path, dashboard: str) -> None:
        self._console.print(
            f"Promoting [bold]{architecture}[/] by the recipe {recipe}, in {folder}. "
            f"Ray dashboard: {dashboard}.",
            soft_wrap=True,
        )

    def goes_on(self, epoch: int, epochs: int) -> None:
        self._console.print(f"Going on after epoch {epoch} of {epochs}.")

    def starts_from(self, weights: str, fitting: str) -> None:
        self._console.print(f"Starting from {weights}: {fitting}", highlight=False)

    def measured(self, probe: Probe, needed: Needs, workers: int, epochs: int) -> None:
        self._console.print(describe(probe, needed, workers=workers, epochs=epochs), soft_wrap=True)

    def epoch_ended(self, epoch: EpochResult, epochs: int) -> None:
        self._console.print(
            f"epoch {epoch.epoch}/{epochs}  loss {epoch.loss:.3f}  "
            f"top-1 {100 * epoch.accuracy:.2f} %  top-5 {100 * (epoch.top5 or 0):.2f} %  "
            f"{epoch.images_per_second:,.0f} images/s  {epoch.workers} workers  "
            f"{epoch.seconds:.0f} s",
            soft_wrap=True,
            highlight=False,
        )

    def written(self, paths: Sequence[Path]) -> None:
        self._console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)
