"""The main job, from a space file to a front, and on to ImageNet where the file says so.

python -m afi_search.run SPACE
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal as size

from afi_search.cli.common import Address, Checkpoints, Data, Preset, SpaceFile, console
from afi_search.cli.confirm import confirm_and_show
from afi_search.formatting import plural

if TYPE_CHECKING:
    from afi_search.space.schema import Promote
    from afi_search.study.study import Study


def run(
    space: SpaceFile,
    preset: Preset = "auto",
    name: Annotated[
        str | None, typer.Option(help="Name of the study, instead of backbone-data-preset.")
    ] = None,
    studies: Annotated[Path, typer.Option(help="The folder of all studies.")] = Path("studies"),
    data: Data = None,
    address: Address = None,
    storage: Annotated[
        str,
        typer.Option(
            help="Where the ledger is: 'journal', 'sqlite' or postgresql://USER@HOST/DATABASE."
        ),
    ] = "journal",
    checkpoints: Checkpoints = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Number of trials. A complete study goes on where this is more than it has.", min=1
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of proposals, weights and batches.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a key, whatever the space file and its preset say: recipe.epochs=3; may be "
            "repeated.",
        ),
    ] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            help="Log the trials with tensorboard, mlflow or wandb (offline), too, into the "
            "study's folder; may be repeated.",
        ),
    ] = None,
) -> None:
    """Search a space, or resume its study, and export the Pareto front.

    With `confirm:` and `promote:` in the space file, go on to confirmed winners on ImageNet.
    """
    from afi_search.api import run_study
    from afi_search.cli.screen import Screen, demand_success
    from afi_search.errors import UserError
    from afi_search.study.study import Interrupted

    given = {"search.trials": trials, "search.seed": seed}
    try:
        with Screen() as screen:
            study = run_study(
                space,
                preset=preset,
                name=name,
                studies=studies,
                data=data,
                address=address,
                storage=storage,
                checkpoints=checkpoints,
                settings=read_settings(settings or ())
                | {key: value for key, value in given.items() if value is not None},
                loggers=logger or (),
                listener=screen,
            )
    except (Interrupted, UserError) as stopped:
        with suppress(OSError, UserError):  # what stopped it may be the disk, and is told
            begun = getattr(stopped, "study", None)
            if begun is not None and begun.ledger.trials():
                show(begun)
        raise
    show(study, whole=True)
    demand_success(study)
    wanted = study.file.space
    if wanted.confirm is not None:
        confirm_and_show(study, data=data, address=address, checkpoints=checkpoints)
    if wanted.promote is not None:
        promote_where_imagenet_is(study.folder, wanted.promote, address)


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Return what `--set` gives, each value read as in a space file.

    Raises:
        SpaceFileError: a text is not KEY=VALUE.

    >>> read_settings(["recipe.epochs=3", "search.pruner={name: none}"])
    {'recipe.epochs': 3, 'search.pruner': {'name': 'none'}}
    """
    from afi_search.space.document import Document
    from afi_search.space.loading import SpaceFileError

    settings = {}
    for text in texts:
        key, given, value = text.partition("=")
        if not given or not all(key.split(".")):
            raise SpaceFileError(f"--set {text}: must be KEY=VALUE, like recipe.epochs=3")
        settings[key] = Document.parse(value, f"--set {text}", SpaceFileError).data
    return settings


def show(study: Study, *, whole: bool = False) -> None:
    """Show the front and what was tried, and write both; the whole report, too, if asked for."""
    from afi_search.report.export import write_report
    from afi_search.report.page import write_page
    from afi_search.report.table import front_table
    from afi_search.report.view import StudyView
    from afi_search.study.checkpoint_location import size_of

    view = StudyView.of(study)
    console.print(front_table(view, console.width))
    console.say(*(f"Left out: {why}" for why in view.left_out))
    if view.info.note:
        console.prose(f"What these numbers are good for: {view.info.note}")
    counts = view.records["state"].value_counts()
    states = ", ".join(f"{n} {state}" for state, n in counts.items())
    rejected = len(study.ledger.rejected())
    left_out = f"; left out as infeasible: {plural(rejected, 'architecture')}" if rejected else ""
    kept = size(sum(size_of(part.checkpoints) for part in study.parts()))
    paths = write_report(view, study.folder)
    if whole:
        paths.append(write_page(view, study.folder))
    console.say(
        f"{plural(len(view.records), 'trial')}{f': {states}' if states else ''}{left_out}",
        f"On disk: {size(study.disk_use())}, {kept} of it checkpoints.",
    )
    console.written(paths)


def promote_where_imagenet_is(folder: Path, wanted: Promote, address: str | None) -> None:
    """Train the winners on ImageNet, or without ImageNet print the command for where it is."""
    if wanted.data is not None and Path(wanted.data).is_dir():
        from afi_search.cli.screen import Screen
        from afi_search.promote.promotion import promote_study

        with Screen() as screen:
            promote_study(folder, address=address, listener=screen)
        return
    console.say(
        f"ImageNet is not here ({wanted.data or 'the space file names no folder'}). Where it is, "
        f"this goes on: afi-search promote {shlex.quote(str(folder))} --data IMAGENET"
    )
