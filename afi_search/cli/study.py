"""What a study takes on disk: afi-search study rm | prune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from afi_search.cli import exits_on_mistake
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
    """Delete a study: its ledger, its checkpoints wherever they lie, and its folder.

    What the study has not written stays, and is named.
    """
    from afi_search.api import Study
    from afi_search.study.checkpoint_location import size_of
    from afi_search.study.folder import written_in

    opened = Study.open(study)
    with opened.held():
        elsewhere = opened.elsewhere()
        names = [*(f"{study}/{name}" for name in written_in(study))]
        names += [each.what for each in elsewhere if not each.foreign]
        before = opened.disk_use()
        if not yes:
            console.print("To be deleted:", *names, sep="\n  ", soft_wrap=True, markup=False)
            typer.confirm(f"Delete the study {opened.name}?", abort=True)
        opened.remove()
    freed = before - size_of(str(study)) - sum(each.size for each in elsewhere if each.foreign)
    console.print(f"{study} is deleted; {size(freed)} are free.", soft_wrap=True, markup=False)
    stays = [f"{each.what}, which {each.foreign}" for each in elsewhere if each.foreign]
    if study.is_dir():
        stays += [f"{path}, which no study writes" for path in sorted(study.iterdir())]
    promote = opened.file.space.promote
    if promote is not None and promote.checkpoints is not None:
        stays.append(f"checkpoints of promotions in {promote.checkpoints}")
    if stays:
        console.print("What stays:", *stays, sep="\n  ", soft_wrap=True, markup=False)
