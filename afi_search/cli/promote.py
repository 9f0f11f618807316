"""Training a study's winners on ImageNet: afi-search promote STUDY --data IMAGENET."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from afi_search.cli import exits_on_mistake

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
        Literal["torchvision", "dali"] | None,
        typer.Option(help="Of the images; dali decodes on the GPU."),
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out what is broken, found now or later.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Of the promotion's folder.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster to join.")] = None,
) -> None:
    """Train a study's winners on ImageNet, or go on with it, and export them."""
    from afi_search.cli.promotion_screen import PromotionScreen
    from afi_search.promote.promotion import promote_study
    from afi_search.space import Architecture
    from afi_search.space.schema import Promote
    from afi_search.study.folder import StudyFile, has_study

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
        listener=PromotionScreen(console),
    )
    if not finished:
        console.print("[bold]Interrupted.[/] The same command goes on from the last epoch.")
        sys.exit(130)
