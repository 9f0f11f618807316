"""Training a study's winners on ImageNet: afi-search promote STUDY --data IMAGENET."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from afi_search.engine.promotion_worker import Probe
from afi_search.errors import exits_on_mistake
from afi_search.promote.estimate import Needs, describe
from afi_search.promote.promotion import PromotionListener, promote_study
from afi_search.space import Architecture
from afi_search.space.schema import LoaderName, Promote
from afi_search.study.folder import StudyFile, has_study
from afi_search.train import EpochResult

console = Console()


@exits_on_mistake
def promote(
    study: Annotated[
        Path,
        typer.Argument(help="A study's folder; with --architecture, any folder to write to."),
    ],
    data: Annotated[
        Path | None, typer.Option(help="ImageNet's folder, with train/CLASS and val/CLASS.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="paper, modern, or a recipe file of your own.")
    ] = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(help="What to train instead of the winners; may be repeated."),
    ] = None,
    top: Annotated[int | None, typer.Option(help="How many winners.", min=1)] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; all GPUs, or one CPU process.", min=1)
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Class folders there must be.", min=2)] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="torchvision's weights of the plain backbone, a file.")
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="Folder or fsspec URL, like s3://bucket/folder.")
    ] = None,
    loader: Annotated[
        LoaderName | None, typer.Option(help="Of the images; dali decodes on the GPU.")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out what the scan finds wrong.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Of the promotion's folder.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster to join.")] = None,
) -> None:
    """Train a study's winners on ImageNet, or go on with it, and export them."""
    wanted = (StudyFile.read(study).space.promote if has_study(study) else None) or Promote()
    given = {
        "data": None if data is None else str(data),
        "recipe": recipe,
        "top": top,
        "classes": classes,
        "pretrained": pretrained,
        "checkpoints": checkpoints,
        "loader": loader,
    }
    wanted = wanted.model_copy(update={key: v for key, v in given.items() if v is not None})
    named = [Architecture.parse(text) for text in architecture or ()]
    finished = promote_study(
        study,
        wanted,
        named,
        workers=workers,
        skip_broken=skip_broken,
        name=name,
        address=address,
        listener=PrintedPromotion(),
    )
    if not finished:
        console.print("[bold]Interrupted.[/] The same command goes on from the last epoch.")
        sys.exit(130)


class PrintedPromotion(PromotionListener):
    """Prints how a promotion goes."""

    def front_is_unconfirmed(self, folder: Path) -> None:
        console.print(
            f"The front is not confirmed: its most accurate by one seed is taken. To be sure "
            f"first: afi-search confirm {folder}"
        )

    def image_left_out(self, path: str) -> None:
        console.print(f"Left out, as asked: {path}", soft_wrap=True, highlight=False)

    def begins(self, architecture: Architecture, recipe: str, folder: Path, dashboard: str) -> None:
        console.print(
            f"Promoting [bold]{architecture}[/] by the recipe {recipe}, in {folder}. "
            f"Ray dashboard: {dashboard}.",
            soft_wrap=True,
        )

    def goes_on(self, epoch: int, epochs: int) -> None:
        console.print(f"Going on after epoch {epoch} of {epochs}.")

    def starts_from(self, weights: str, fitting: str) -> None:
        console.print(f"Starting from {weights}: {fitting}", highlight=False)

    def measured(self, probe: Probe, needed: Needs, workers: int, epochs: int) -> None:
        console.print(describe(probe, needed, workers=workers, epochs=epochs), soft_wrap=True)

    def epoch_ended(self, epoch: EpochResult, epochs: int) -> None:
        console.print(
            f"epoch {epoch.epoch}/{epochs}  loss {epoch.loss:.3f}  "
            f"top-1 {100 * epoch.accuracy:.2f} %  top-5 {100 * (epoch.top5 or 0):.2f} %  "
            f"{epoch.images_per_second:,.0f} images/s  {epoch.workers} workers  "
            f"{epoch.seconds:.0f} s",
            soft_wrap=True,
            highlight=False,
        )

    def written(self, paths: Sequence[Path]) -> None:
        console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)
