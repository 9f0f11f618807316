"""Confirming a study's front with several seeds: afi-search confirm STUDY."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afi_search.cli.common import Address, Checkpoints, Data, Json, StudyFolder, console
from afi_search.formatting import mega, percent

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from afi_search.api import Study


def confirm(
    study: StudyFolder,
    top: Annotated[
        int | None,
        typer.Option(help="Confirm only so many of the front, the most accurate.", min=1),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Number of trainings of each architecture; else the file's, else 3.",
            min=2,
            max=1000,
        ),
    ] = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(help="An architecture to confirm instead of the front; may be repeated."),
    ] = None,
    data: Data = None,
    address: Address = None,
    checkpoints: Checkpoints = None,
    json: Json = False,
) -> None:
    """Train a study's front again, by its `confirm:` recipe with several seeds, and test it."""
    from afi_search.api import Study

    confirm_and_show(
        Study.open(study, imports=True),
        seeds=seeds,
        top=top,
        architectures=architecture or (),
        data=data,
        address=address,
        checkpoints=checkpoints,
        json=json,
    )


def confirm_and_show(study: Study, *, json: bool = False, **options: Any) -> None:
    """Confirm a study as `Study.confirm` does, and show what is confirmed, interrupted or not."""
    from afi_search.cli.screen import ConfirmScreen, demand_success
    from afi_search.promote.confirm_results import FILES, read_confirmed
    from afi_search.search.listener import Listener
    from afi_search.study.folder import CONFIRM

    try:
        with nullcontext(Listener()) if json else ConfirmScreen() as listener:
            study.confirm(listener=listener, **options)
    finally:
        table = read_confirmed(study)
        if json:
            console.table_of([{**row} for _, row in table.iterrows()], json)
        elif not table.empty:
            console.print(shown(table, study.name))
            console.written(study.folder / CONFIRM / name for name in FILES)
    if study.confirmation is not None:
        demand_success(study.confirmation)


def shown(table: pd.DataFrame, name: str) -> Table:
    """Return the rows for the terminal."""
    from afi_search.promote.confirm_results import CONVENTIONS
    from afi_search.report.table import fitting_table

    rows = [
        {
            "architecture": row["architecture"],
            "test, %": percent(row["test"]),
            "MACs, M": mega(row["macs"]),
            "test, +-": percent(row["test_high"] - row["test"]),
            "seeds": str(row["seeds"]),
            "validation, %": percent(row["validation"]),
            "validation, +-": percent(row["validation_high"] - row["validation"]),
            "from": row["origin"],
            "verdict": row["verdict"],
        }
        for row in table.to_dict("records")
    ]
    conventions = {
        "test, %": "test, validation: mean over seeds and 95 % interval",
        "verdict": CONVENTIONS["verdict"],
    }
    return fitting_table(f"Confirmed: {name}", conventions, list(rows[0]), rows, console.width)
