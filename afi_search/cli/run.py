"""The main job, from a space file to a front, and on to ImageNet where the file says so.

python -m afi_search.run SPACE
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from afi_search.cli import exits_on_mistake
from afi_search.cli.confirm import confirm_and_show
from afi_search.formatting import size

if TYPE_CHECKING:
    from afi_search.space.schema import Promote
    from afi_search.study.study import Study

console = Console()


@exits_on_mistake
def run(
    space: Annotated[
        Path, typer.Argument(help="A space file, or one that `spaces` lists, by name.")
    ],
    preset: Annotated[
        str,
        typer.Option(
            help="A preset of the space file; 'auto': 'short' where there is a CUDA device, "
            "'smoke' where there is none; 'none': the file as it is."
        ),
    ] = "auto",
    name: Annotated[
        str | None, typer.Option(help="The study's name, instead of backbone-data-preset.")
    ] = None,
    studies: Annotated[Path, typer.Option(help="The folder of all studies.")] = Path("studies"),
    data: Annotated[
        str | None,
        typer.Option(help="The folder of the data sets, before the file's and AFI_SEARCH_DATA."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster to join; 'auto' finds it.")
    ] = None,
    storage: Annotated[
        str,
        typer.Option(help="Of the ledger: 'journal', 'sqlite' or postgresql://USER@HOST/DATABASE."),
    ] = "journal",
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="A folder or fsspec URL for the checkpoints that all machines of a cluster reach, "
            "like s3://bucket/folder; the study's folder otherwise."
        ),
    ] = None,
) -> None:
    """Search a space, or resume its study, and export the Pareto front.

    With `confirm:` and `promote:` in the space file, go on to confirmed winners on ImageNet.
    """
    from afi_search.api import run_study
    from afi_search.cli.screen import Screen, resumable
    from afi_search.study.study import Interrupted

    where = {"data": data, "address": address, "checkpoints": checkpoints}
    with resumable(console):
        try:
            study = run_study(
                space,
                preset=preset,
                name=name,
                studies=studies,
                storage=storage,
                listener=Screen(console),
                **where,
            )
        except Interrupted as stopped:
            show(stopped.study)
            raise
        show(study)
        wanted = study.file.space
        if wanted.confirm is not None:
            confirm_and_show(study, **where)
        if wanted.promote is not None and not promote_winners(
            study.folder, wanted.promote, address
        ):
            raise Interrupted(study)


def show(study: Study) -> None:
    """Write the front and the trials, and show the front."""
    from afi_search.report.export import write_report
    from afi_search.report.table import FrontTable
    from afi_search.report.view import StudyView
    from afi_search.study.checkpoint_location import size_of

    view = StudyView.of(study)
    paths = write_report(view, study.folder)
    console.print(FrontTable(view))
    if view.info.note:
        console.print(f"What these numbers are good for: {view.info.note}")
    counts = view.records["state"].value_counts()
    rejected = len(study.ledger.rejected())
    console.print(
        f"{len(view.records)} trials: "
        + ", ".join(f"{n} {state}" for state, n in counts.items())
        + (f"; {rejected} infeasible architectures were left out" if rejected else "")
    )
    console.print("Written:", *(f"  {path}" for path in paths), sep="\n", soft_wrap=True)
    console.print(
        f"On disk: {size(study.disk_use())}, {size(size_of(study.checkpoints))} of it checkpoints."
    )


def promote_winners(folder: Path, wanted: Promote, address: str | None) -> bool:
    """Train the winners on ImageNet, or without ImageNet print the command for where it is."""
    if wanted.data is not None and Path(wanted.data).is_dir():
        from afi_search.cli.promotion_screen import PromotionScreen
        from afi_search.promote.promotion import promote_study

        return promote_study(folder, wanted, address=address, listener=PromotionScreen(console))
    where = wanted.data or "the space file names no folder"
    console.print(
        f"ImageNet is not here ({where}). Where it is, this goes on: "
        f"[bold]afi-search promote {folder} --data IMAGENET[/]",
        soft_wrap=True,
    )
    return True
