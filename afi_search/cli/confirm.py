"""Confirming a study's front with several seeds: afi-search confirm STUDY."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from afi_search.cli import exits_on_mistake
from afi_search.formatting import mega, percent

if TYPE_CHECKING:
    import pandas as pd

    from afi_search.api import Study

console = Console()


@exits_on_mistake
def confirm(
    study: Annotated[
        Path, typer.Argument(help="A study's folder, like studies/resnet32-cifar100.")
    ],
    top: Annotated[
        int | None,
        typer.Option(help="Confirm only so many of the front, the most accurate.", min=1),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each architecture.", min=2)
    ] = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(help="An architecture to confirm instead of the front; may be repeated."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="The folder of the data sets.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster to join.")] = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="A folder or fsspec URL for the checkpoints, as for run.")
    ] = None,
) -> None:
    """Train a study's front again, by the full recipe with several seeds, and test it."""
    from afi_search.api import Study
    from afi_search.cli.screen import resumable

    with resumable(console):
        confirm_and_show(
            Study.open(study),
            seeds=seeds,
            top=top,
            architectures=architecture or (),
            data=data,
            address=address,
            checkpoints=checkpoints,
        )


def confirm_and_show(study: Study, **options: Any) -> None:
    """Confirm a study as `Study.confirm` does, and show what is confirmed, interrupted or not."""
    from afi_search.cli.screen import ConfirmScreen
    from afi_search.study.study import Interrupted

    try:
        study.confirm(listener=ConfirmScreen(console), **options)
    except Interrupted:
        show_confirmed(study)
        raise
    show_confirmed(study)


def show_confirmed(study: Study) -> None:
    """Show what is confirmed so far, and where it is written."""
    from afi_search.promote.confirm import read_confirmed
    from afi_search.promote.confirm_results import FILES
    from afi_search.study.folder import CONFIRM

    table = read_confirmed(study)
    if table.empty:
        return
    console.print(shown(table, study.name))
    paths = (study.folder / CONFIRM / name for name in FILES)
    console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)


def shown(table: pd.DataFrame, name: str) -> Table:
    """Return the rows for the terminal."""
    from afi_search.promote.confirm_results import CONVENTIONS

    screen = Table(
        title=f"Confirmed: {name}",
        title_justify="left",
        caption="test, validation: mean over seeds and 95 % interval; " + CONVENTIONS["verdict"],
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    screen.add_column("architecture", overflow="fold", min_width=16)
    screen.add_column("from")
    for heading in ("MACs\nM", "seeds\n", "test\n%", "\n+-", "validation\n%", "\n+-"):
        screen.add_column(heading, justify="right", no_wrap=True)
    screen.add_column("verdict\n")
    for row in table.to_dict("records"):
        screen.add_row(
            row["architecture"],
            row["origin"],
            mega(row["macs"]),
            str(row["seeds"]),
            percent(row["test"]),
            percent(row["test_high"] - row["test"]),
            percent(row["validation"]),
            percent(row["validation_high"] - row["validation"]),
            row["verdict"],
        )
    return screen
