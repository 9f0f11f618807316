"""What a person sees while a winner is trained on ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afi_search.cli import GOES_ON, end_at_once
from afi_search.cli.common import console
from afi_search.search.listener import Listener
from afi_search.space import Architecture
from afi_search.train import EpochResult


class PromotionScreen(Listener):
    """Prints how a promotion goes."""

    def front_is_unconfirmed(self, folder: Path) -> None:
        console.say(
            f"The front is not confirmed: its most accurate by one seed is taken. To be sure "
            f"first: afi-search confirm {folder}"
        )

    def image_left_out(self, what: str) -> None:
        console.say(f"Left out: {what}")

    def promotion_begun(
        self, architecture: Architecture, recipe: str, folder: Path, dashboard: str
    ) -> None:
        console.say(
            f"Promoting {architecture} by the recipe {recipe}, in {folder}. "
            f"Ray dashboard: {dashboard}."
        )

    def promotion_resumed(self, epoch: int, epochs: int) -> None:
        console.say(f"Going on after epoch {epoch} of {epochs}.")

    def weights_read(self, weights: str, fitting: str) -> None:
        console.say(f"Starting from {weights}: {fitting}")

    def promotion_measured(self, seconds: float, needed: str) -> None:
        console.say(needed)

    def epoch_ended(self, epoch: EpochResult, epochs: int) -> None:
        console.say(
            f"epoch {epoch.epoch}/{epochs}  loss {epoch.loss:.3f}  "
            f"top-1 {100 * epoch.accuracy:.2f} %  top-5 {100 * (epoch.top5 or 0):.2f} %  "
            f"{epoch.images_per_second:,.0f} images/s  {epoch.workers} workers  "
            f"{epoch.seconds:.0f} s"
        )

    def engine_lost(self, reason: str) -> None:
        end_at_once(f"error: {reason}. {GOES_ON}", 2)

    def model_written(self, paths: Sequence[Path]) -> None:
        console.written(paths)
