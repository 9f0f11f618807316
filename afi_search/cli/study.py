"""What a study takes on disk: afi-search study rm | prune."""

from __future__ import annotations

from typing import Annotated

import typer

from afi_search.cli.common import Command, Imports, StudyFolder, console
from afi_search.formatting import size

app = typer.Typer(
    help="Delete a study, or what of it is of no more use.",
    epilog="Example: afi-search study prune studies/resnet32-cifar100-smoke",
    no_args_is_help=True,
)


@app.command(cls=Command, epilog="Example: afi-search study prune studies/resnet32-cifar100-smoke")
def prune(study: StudyFolder, imports: Imports = False) -> None:
    """Delete all checkpoints but those of the front, the confirmation and unfinished trials."""
    from afi_search.api import Study

    opened = Study.open(study, imports=imports)
    freed = opened.prune()
    console.say(
        f"{study}: {size(freed)} of checkpoints deleted; the study takes "
        f"{size(opened.disk_use())} now."
    )


@app.command(cls=Command, epilog="Example: afi-search study repair studies/resnet32-cifar100-smoke")
def repair(study: StudyFolder, imports: Imports = False) -> None:
    """Restore what can be of a study whose ledger or study.yaml is damaged or gone."""
    from afi_search.study import repair as mending

    done = list(mending.repair(study, imports=imports))
    for line in done or ["There is nothing to repair."]:
        console.say(line)


@app.command(
    cls=Command, epilog="Example: afi-search study rm studies/resnet32-cifar100-smoke --yes"
)
def rm(
    study: StudyFolder,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    imports: Imports = False,
) -> None:
    """Delete a study: its ledger, its checkpoints wherever they lie, and its folder.

    What the study has not written stays, and is named.
    """
    from afi_search.api import Study
    from afi_search.study.checkpoint_location import size_of
    from afi_search.study.folder import written_in

    opened = Study.open(study, imports=imports)
    with opened.held():
        elsewhere = opened.elsewhere()
        names = [*(f"{study}/{name}" for name in written_in(study))]
        names += [each.what for each in elsewhere if not each.foreign]
        before = opened.disk_use()
        if not yes:
            console.say("To be deleted:", *(f"  {name}" for name in names))
            typer.confirm(f"Delete the study {opened.name}?", abort=True)
        opened.remove()
    freed = before - size_of(str(study)) - sum(each.size for each in elsewhere if each.foreign)
    console.say(f"{study} is deleted; {size(freed)} are free.")
    stays = [f"{each.what}, which {each.foreign}" for each in elsewhere if each.foreign]
    if study.is_dir():
        stays += [f"{path}, which no study writes" for path in sorted(study.iterdir())]
    promote = opened.file.space.promote
    if promote is not None and promote.checkpoints is not None:
        stays.append(f"checkpoints of promotions in {promote.checkpoints}")
    if stays:
        console.say("What stays:", *(f"  {what}" for what in stays))
