"""Training a study's winners on ImageNet: afi-search promote STUDY --data IMAGENET."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from afi_search.cli.common import Address, Checkpoints


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
    top: Annotated[int | None, typer.Option(help="Number of winners to train.", min=1)] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of processes; otherwise one a GPU, or one on the CPU.", min=1),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of class folders that there must be.", min=2)
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(help="Weights to start with: a file of torchvision's, or a model's folder."),
    ] = None,
    checkpoints: Checkpoints = None,
    loader: Annotated[
        Literal["torchvision", "dali"] | None,
        typer.Option(help="What loads the images; dali decodes them on the GPU."),
    ] = None,
    skip_broken: Annotated[
        bool,
        typer.Option("--skip-broken", help="Leave out images that are broken, found now or later."),
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the promotion's folder.")] = None,
    address: Address = None,
) -> None:
    """Train a study's winners on ImageNet, or go on with it, and export them."""
    from afi_search.cli.screen import Screen

    with Screen() as screen:
        from afi_search.promote.promotion import promote_study

        promote_study(
            study,
            architecture or (),
            data=data,
            recipe=recipe,
            top=top,
            workers=workers,
            classes=classes,
            pretrained=pretrained,
            checkpoints=checkpoints,
            loader=loader,
            skip_broken=skip_broken,
            name=name,
            address=address,
            listener=screen,
        )
