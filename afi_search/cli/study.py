"""What a study takes on disk: afi-search study rm | prune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from afi_search.errors import exits_on_mistake
from afi_search.formatting import size

app = typer.Typer(
    help="Delete a study, or what of it is of no more use.",
    epilog="Example: afi-search study prune studies/resnet32-cifar100-smoke",
    no_args_is_help=True,
)
console = Console()

StudyFolder = Annotated[Path, typer.Argument(help="A study's folder.")]


@app.command(epilog="Example: afi-search study prune studies/resnet32-cifar100-smoke")
@exits_on_mistake
def prune(study: StudyFolder) -> None:
    """Delete all checkpoints but those of the front, the confirmation and unfinished trials."""
    from afi_search.api import Study

    opened = Study.open(study)
    freed = opened.prune()
    console.print(
        f"{study}: {size(freed)} of checkpoints deleted; the study takes "
        f"{size(opened.disk_use())} now.",
        soft_wrap=True,
    )


@app.command(epilog="Example: afi-search study rm studies/resnet32-cifar100-smoke --yes")
@exits_on_mistake
def rm(
    study: StudyFolder,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a study whole: its ledger, its checkpoints wherever they lie, and its folder."""
    from afi_search.api import Study

    opened = Study.open(study)
    with opened.held():
        freed = opened.disk_use()
        if not yes:
            typer.confirm(f"Delete {study} with its ledger and {size(freed)}?", abort=True)
        opened.remove()
    console.print(f"{study} is deleted; {size(freed)} are free.", soft_wrap=True)
    promote = opened.file.space.promote
    if promote is not None and promote.checkpoints is not None:
        console.print(
            f"Checkpoints of promotions in {promote.checkpoints} are not touched.", soft_wrap=True
        )
