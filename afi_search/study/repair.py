"""Mending a study whose ledger or study.yaml is damaged or gone: afi-search study repair."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import TypeAdapter, ValidationError

from afi_search.errors import UserError
from afi_search.files import write_whole
from afi_search.space import Architecture, Space
from afi_search.space.document import Document
from afi_search.study.folder import (
    CONFIRM,
    STUDY_FILE,
    SUPERNET,
    StudyError,
    StudyFile,
    has_study,
    only_driver,
)
from afi_search.study.journal import (
    DamagedLedger,
    StorageError,
    attribute_in,
    mend,
    set_aside,
)
from afi_search.study.ledger import OWNER, SETTINGS, Ledger, asked_for, curve, directions_of
from afi_search.study.operations import Checkpointed, Log
from afi_search.study.ownership import Mark, mark_at, put_mark, trials_in
from afi_search.study.reference import cost_of
from afi_search.study.storage import FILES, JOURNAL, SQLITE, has_file, in_database, only_client
from afi_search.study.study import Study

if TYPE_CHECKING:
    from afi_search.study.database import Hold

_RESTORED, _LOST = "restored", "what it was is lost with the ledger"
_CHECKPOINTED = TypeAdapter(Checkpointed)


def repair(folder: Path, *, imports: bool = False) -> Iterator[str]:
    """Restore what can be of a study and of those in it, and yield what was done, a line each.

    Nothing is deleted: of a ledger in a file, all that is whole is kept and the rest set aside in a
    file beside it. Trials that the ledger does not know are brought back from their checkpoints,
    each with the epochs it has trained; where there is none, a failed trial stands for what is
    lost. A study.yaml that is gone is the ledger's. What the study owned on another machine, from
    which it was moved here, becomes its own.

    Args:
        imports: whether to run the modules that its `imports:` names, as `StudyFile.read` says.

    Raises:
        StudyError: a driver is at work on the study, the folder is a copy of another study, or
            the study's settings are not known any more.
        StorageError: its database cannot be reached.
    """
    if not _is_studys(folder):
        raise StudyError(f"{folder}: is not a study's folder; it has no {STUDY_FILE} and no ledger")
    with only_driver(folder):
        file, is_damaged = _settings(folder, imports)
        study = Study(folder, file)
        with only_client(file.storage, file.ledger) as hold:
            owner, mark = _owner(study, hold), study.mark
            if owner and owner.why_not_of(mark) and not owner.may_have_moved_to(mark):
                raise StudyError(f"{folder}: its ledger {owner.why_not_of(mark)}")
            if is_damaged:
                set_aside(folder / STUDY_FILE)
            ended = _ended_in(folder / FILES[SQLITE]) if file.storage == SQLITE else {}
            if not in_database(file.storage):
                yield from _mend_file(study)
            ledger = Ledger.at(folder, file.storage, file.ledger, hold)
            study.ledger = ledger or Ledger.create(folder, file, hold)
            if ledger is None:
                yield "The ledger was gone: a new one was made."
            yield from _bring_back(study, ended)
            if is_damaged or not has_study(folder):
                yield f"{folder / STUDY_FILE} was gone or damaged: the ledger's was written."
            write_whole(folder / STUDY_FILE, file.dump())
            yield from _take_over(study)
    for part in (folder / CONFIRM, folder / SUPERNET):
        if _is_studys(part):
            yield from repair(part, imports=imports)


def _is_studys(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (STUDY_FILE, *FILES.values()))


def _settings(folder: Path, imports: bool) -> tuple[StudyFile, bool]:
    """Return what study.yaml says, or else the ledger, and whether study.yaml is damaged."""
    reason = f"there is no {STUDY_FILE} in it"
    if has_study(folder):
        try:
            return StudyFile.of(Document.read(folder / STUDY_FILE, StudyError), imports), False
        except UserError as error:
            reason = str(error)
    kept: StudyFile | None = None
    journal = folder / FILES[JOURNAL]
    if journal.is_file() and (text := attribute_in(journal, SETTINGS)) is not None:
        kept = StudyFile.parse(text, f"the {STUDY_FILE} in {journal}", imports=imports)
    elif ledger := Ledger.at(folder, "sqlite", ""):
        kept = ledger.settings()
    if kept is None:
        raise StudyError(
            f"{folder}: cannot be repaired: {reason}, and no ledger in it says with which settings "
            f"the study was made; put {STUDY_FILE} back"
        )
    return kept, has_study(folder)


def _owner(study: Study, hold: Hold | None) -> Mark | None:
    """Return whose the ledger is, a damaged one too; None where nothing says so."""
    try:
        ledger = Ledger.at(study.folder, study.file.storage, study.file.ledger, hold)
        return None if ledger is None else ledger.owner()
    except DamagedLedger:
        mark = attribute_in(study.folder / FILES[JOURNAL], OWNER)
        return None if mark is None else Mark(**mark)
    except StorageError:
        if in_database(study.file.storage):
            raise
        return None


def _ended_in(path: Path) -> dict[int, TrialState]:
    """Return how trials ended that were pruned or failed, as far as a database file says so."""
    ended = TrialState.PRUNED, TrialState.FAIL
    if not path.is_file():
        return {}
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT number, state FROM trials").fetchall()
        return {number: state for number, name in rows for state in ended if state.name == name}
    return {}


def _mend_file(study: Study) -> Iterator[str]:
    folder, storage = study.folder, study.file.storage
    path = folder / FILES[storage]
    logs = [end for end in ("-wal", "-shm") if path.with_name(path.name + end).exists()]
    try:
        ledger = Ledger.at(folder, storage, study.file.ledger)
        is_damaged = ledger is None and storage == JOURNAL and has_file(folder, storage)
        if ledger is None and logs:  # of another file, with which SQLite opens no new one
            path.touch()
            raise StorageError("it was gone or empty")
    except DamagedLedger:
        is_damaged = True
    except StorageError as error:
        if not path.is_file():
            raise
        is_damaged = False
        aside = set_aside(path)
        yield f"{path}: was no database ({error}); it was set aside as {aside.name}."
        path.unlink()
        for end in logs:
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    if is_damaged:
        named = {"study_name": study.file.ledger, "directions": directions_of(study.objectives)}
        count, missing = mend(path, named, partial(_trial, study), partial(_trained, study))
        yield f"{path}: was written anew; pieces of lines that were set aside beside it: {count}."
        if missing:
            yield f"The first lines of the trials {', '.join(map(str, missing))} were among them."


def _bring_back(study: Study, ended: Mapping[int, TrialState]) -> Iterator[str]:
    """Enter the trials that only checkpoints know, and end those that have or had ended."""
    ledger = study.ledger
    known = len(ledger.trials())
    for number in range(known, max(trials_in(study.checkpoints), default=-1) + 1):
        trial = ledger.enter(_trial(study, number))
        what = "lost" if trial.state.is_finished() else f"{len(curve(trial))} epochs brought back"
        yield f"Trial {number} ({trial.user_attrs['architecture']}): {what}."
    for trial in ledger.trials((TrialState.RUNNING,)):
        facts = trial.user_attrs
        if facts["origin"] == _RESTORED and trial.number in ended:
            ledger.finish(trial.number, ended[trial.number])
        elif facts["origin"] == _RESTORED and len(curve(trial)) == facts["epochs"]:
            reached = {**facts, "accuracy": curve(trial)[-1]}
            values = [float(reached[name]) for name in study.objectives]
            ledger.finish(trial.number, TrialState.COMPLETE, values)


def _checkpoint(study: Study, number: int) -> Checkpointed | None:
    """Return what a trial's checkpoint says of it; None where there is none that does."""
    from afi_search.train.checkpoint import CorruptCheckpoint, load

    try:
        return _CHECKPOINTED.validate_python(load(study.trial_checkpoints(number)), strict=True)
    except (CorruptCheckpoint, ValidationError):
        return None


def _trained(study: Study, number: int) -> dict[int, float]:
    state = _checkpoint(study, number)
    return {epoch["epoch"]: epoch["accuracy"] for epoch in state["history"]} if state else {}


def _trial(study: Study, number: int) -> FrozenTrial:
    """Return a trial as its checkpoint has it; where there is none, one that failed."""
    file, state = study.file.space, _checkpoint(study, number)
    lost = {"architecture": study.info.backbones[0], "seed": file.search.seed}
    facts: Log = {**state["trial"]} if state else lost | {"reason": _LOST}
    architecture = Architecture.parse(facts["architecture"])
    return create_trial(
        state=TrialState.RUNNING if state else TrialState.FAIL,
        **asked_for(Space(file), architecture),
        user_attrs={
            **facts,
            "epochs": file.recipe.epochs,
            **cost_of(architecture, study.info).figures(),
            "origin": _RESTORED,
            "seconds": sum((epoch["seconds"] for epoch in state["history"]), 0.0) if state else 0.0,
        },
        intermediate_values=_trained(study, number),
    )


def _take_over(study: Study) -> Iterator[str]:
    """Mark what the study owns as that of its folder here; its ledger is not another's."""
    mark, location = study.mark, study.checkpoints
    found = mark_at(location) if study.keeps_elsewhere else None
    if found is not None and found.may_have_moved_to(mark):
        put_mark(location, mark)
        yield f"The checkpoints in {location} are now this study's, and not those of {found.home}."
    study.ledger.claim(mark, study.file, study.folder)
