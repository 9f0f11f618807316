"""What studies there are, and what they take: afi-search study list | status | export | rm | ..."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal as size

from afi_search.cli.common import Command, Imports, Json, StudyFolder, console
from afi_search.errors import UserError

if TYPE_CHECKING:
    from afi_search.study.study import Study

app = typer.Typer(
    help="See what studies there are and how far they are; export, repair or delete one.",
    epilog="Example: afi-search study list",
    no_args_is_help=True,
)


@app.command("list", cls=Command, epilog="Example: afi-search study list --json")
def list_studies(
    studies: Annotated[Path, typer.Option(help="The folder of all studies.")] = Path("studies"),
    json: Json = False,
) -> None:
    """List the studies in a folder: how far each is, its front and its best accuracy."""
    from afi_search.api import Study
    from afi_search.study.folder import STUDY_FILE

    rows = []
    for folder in (path.parent for path in sorted(studies.glob(f"*/{STUDY_FILE}"))):
        try:
            rows.append(outline(Study.open(folder)))
        except UserError:
            rows.append({"study": str(folder), "state": "cannot be read", **_UNKNOWN})
    if rows or json:
        console.table_of(rows, json)
    else:
        console.say(f"There is no study in {studies}.")


@app.command(cls=Command, epilog="Example: afi-search study status studies/resnet32-cifar100-smoke")
def status(study: StudyFolder, json: Json = False) -> None:
    """Say how far a study is, also while it runs."""
    from afi_search.api import Study
    from afi_search.study.ledger import STATE_WORDS

    opened = Study.open(study)
    states = opened.records()["state"].value_counts()
    confirmation, taken = opened.confirmation, opened.disk_use()
    told = {
        **outline(opened),
        **{state: int(states.get(state, 0)) for state in STATE_WORDS.values()},
        "confirmed trainings": 0
        if confirmation is None
        else int(confirmation.records()["full"].sum()),
        "on disk, bytes" if json else "on disk": taken if json else size(taken),
    }
    if not json:
        told["trials ended"] = f"{told['trials ended']} of {told.pop('trials wanted')}"
    rows = [told] if json else [{"": name, study.name: value} for name, value in told.items()]
    console.table_of(rows, json)


_UNKNOWN = dict.fromkeys(("trials ended", "trials wanted", "on the front", "best accuracy, %"))


def outline(study: Study) -> dict[str, Any]:
    """Say in figures how far a study is."""
    from afi_search.study.folder import is_at_work
    from afi_search.study.pareto import front

    records, wanted = study.records(), study.file.space.search.trials
    ended = int(records["state"].isin(("complete", "pruned", "failed")).sum())
    best = front(records)
    state = "complete" if ended >= wanted else "stopped"
    most = round(100 * float(best["accuracy"].max()), 2) if len(best) else None
    return {
        "study": str(study.folder),
        "state": "at work" if is_at_work(study.folder) else state,
        **dict(zip(_UNKNOWN, (ended, wanted, len(best), most), strict=True)),
    }


@app.command(
    cls=Command,
    epilog="Example: afi-search study export studies/resnet32-cifar100-smoke trials.parquet",
)
def export(
    study: StudyFolder,
    to: Annotated[Path, typer.Argument(help="The file to write, .csv or .parquet.")],
    imports: Imports = False,
) -> None:
    """Write a study's ledger as a table, a row a trial."""
    from afi_search.api import Study
    from afi_search.report.export import write_trials

    console.written([write_trials(Study.open(study, imports=imports).records(), to)])


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
    freed = before - size_of(str(study))
    console.say(f"{study} is deleted; {size(freed)} are free.")
    stays = [f"{each.what}, which {each.foreign}" for each in elsewhere if each.foreign]
    if study.is_dir():
        stays += [f"{path}, which no study writes" for path in sorted(study.iterdir())]
    promote = opened.file.space.promote
    if promote is not None and promote.checkpoints is not None:
        stays.append(f"checkpoints of promotions in {promote.checkpoints}")
    if stays:
        console.say("What stays:", *(f"  {what}" for what in stays))
