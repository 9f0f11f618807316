"""What a study takes on disk: afi-search study rm | prune."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import fsspec
import optuna
import typer
from optuna.trial import TrialState
from rich.console import Console

from afi_search.errors import exits_on_mistake
from afi_search.formatting import size
from afi_search.promote.confirm import FOLDER as CONFIRM
from afi_search.promote.confirm import read_confirmed
from afi_search.promote.promotion import FOLDER as PROMOTE
from afi_search.study import Ledger
from afi_search.study.checkpoint_location import is_elsewhere, place_of, size_of
from afi_search.study.checkpoint_retention import drop_others, worth_keeping
from afi_search.study.folder import STUDY_FILE, StudyFile, only_driver
from afi_search.study.storage import in_database, only_client, open_storage

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
    with held(study):
        freed = prune_study(study)
    console.print(
        f"{study}: {size(freed)} of checkpoints deleted; the study takes {size(taken(study))} now.",
        soft_wrap=True,
    )


@app.command(epilog="Example: afi-search study rm studies/resnet32-cifar100-smoke --yes")
@exits_on_mistake
def rm(
    study: StudyFolder,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a study whole: its ledger, its checkpoints wherever they lie, and its folder."""
    with held(study):
        freed = taken(study)
        kept_elsewhere = promoted_elsewhere(study)
        if not yes:
            typer.confirm(f"Delete {study} with its ledger and {size(freed)}?", abort=True)
        remove_study(study)
    console.print(f"{study} is deleted; {size(freed)} are free.", soft_wrap=True)
    if kept_elsewhere is not None:
        console.print(
            f"Checkpoints of promotions in {kept_elsewhere} are not touched.", soft_wrap=True
        )


def prune_study(folder: Path) -> int:
    """Delete the checkpoints of a study and its confirmation that nothing needs; return bytes.

    A promotion's checkpoints stay: its own command goes on from them.
    """
    file = StudyFile.read(folder)
    kept = {folder: worth_keeping(Ledger.open(folder).trials(), file.space.objectives)}
    if has_study(folder / CONFIRM):
        kept[folder / CONFIRM] = confirmation_kept(folder)
    before = taken(folder)
    for part, numbers in kept.items():
        drop_others(place_in(part), numbers)
    return before - taken(folder)


def confirmation_kept(folder: Path) -> set[int]:
    """Return the trainings of a confirmation whose weights may still be of use.

    Those that are not finished or not tested, and those of architectures that no other beats.
    """
    ledger = Ledger.open(folder / CONFIRM)
    tested, confirmed = ledger.tested(), read_confirmed(folder)
    beaten = set(confirmed.loc[confirmed["verdict"] == "beaten", "architecture"])
    return {
        trial.number
        for trial in ledger.trials()
        if trial.state not in (TrialState.PRUNED, TrialState.FAIL)
        and (trial.number not in tested or trial.user_attrs["architecture"] not in beaten)
    }


def remove_study(folder: Path) -> None:
    """Delete a study and its confirmation: checkpoints, ledgers in a database, then the folder.

    Killed in between, what is left is a study whose trials begin again, and study.yaml goes last,
    so that the same command finishes the work.
    """
    for part in parts(folder):
        place = place_in(part)
        filesystem, path = fsspec.core.url_to_fs(place)
        with suppress(FileNotFoundError):
            filesystem.rm(path, recursive=True)
        file = StudyFile.read(part)
        if in_database(file.storage):
            with suppress(KeyError):
                optuna.delete_study(study_name=file.name, storage=open_storage(part, file.storage))
    last = folder / STUDY_FILE
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry != last:
            entry.unlink()
    last.unlink()
    with suppress(OSError):  # another study has been begun there in this moment
        folder.rmdir()


def parts(folder: Path) -> list[Path]:
    """Return the folders that hold a study of their own: the confirmation's, then the study's."""
    return [part for part in (folder / CONFIRM, folder) if has_study(part)]


def taken(folder: Path) -> int:
    """Return the bytes of a study with its confirmation, and of what of them lies elsewhere."""
    places = (place_in(part) for part in parts(folder))
    return size_of(str(folder)) + sum(size_of(p) for p in places if is_elsewhere(folder, p))


def place_in(folder: Path) -> str:
    """Return where the checkpoints of the study in a folder lie."""
    return place_of(folder, StudyFile.read(folder).checkpoints)


def has_study(folder: Path) -> bool:
    """Whether a folder is a study's."""
    return (folder / STUDY_FILE).is_file()


def promoted_elsewhere(folder: Path) -> str | None:
    """Return the place outside the study that its space file names for promotions."""
    promote = StudyFile.read(folder).space.promote
    return promote.checkpoints if promote is not None else None


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a study, its confirmation and its promotions for this process alone.

    Raises:
        StudyError: the folder holds no study, or a driver is at work on a part of it.
        StorageError: one is at work on its ledger in a database.
    """
    StudyFile.read(folder)
    promotions = [p for p in (folder / PROMOTE).glob("*") if p.is_dir()]
    with ExitStack() as stack:
        for part in (*parts(folder), *promotions):
            stack.enter_context(only_driver(part))
        for part in parts(folder):
            file = StudyFile.read(part)
            stack.enter_context(only_client(file.storage, file.name))
        yield
