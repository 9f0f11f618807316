"""A study as one object: what its folder holds, and the one place where it is opened."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import optuna
import pandas as pd

from afi_search.cost import CostTable
from afi_search.errors import UserError
from afi_search.files import write_whole
from afi_search.study.checkpoint_location import (
    IN_THE_FOLDER,
    is_named_for,
    location_of,
    size_of,
    trial_location,
)
from afi_search.study.checkpoint_retention import CheckpointRetention
from afi_search.study.facts import STARTED
from afi_search.study.folder import (
    CONFIRM,
    PROMOTE,
    STUDY_FILE,
    SUPERNET,
    StudyError,
    StudyFile,
    delete_written,
    differences,
    fixed,
    has_study,
    only_driver,
    resumed,
    written_in,
)
from afi_search.study.info import StudyInfo, study_info
from afi_search.study.ledger import Ledger, LedgerError
from afi_search.study.ownership import (
    Mark,
    delete_checkpoints,
    put_mark,
    trials_in,
    why_not_owned,
)
from afi_search.study.pareto import costs_of, front
from afi_search.study.reference import measure_references, reference_point
from afi_search.study.storage import FILES, has_file, in_database, only_client, open_storage


@dataclass(frozen=True)
class Belonging:
    """Something that a study names outside its folder.

    `foreign` says why it is not the study's and stays; it is empty where it is.
    """

    what: str
    foreign: str
    delete: Callable[[], None]


class Study:
    """What a study keeps: its settings, its ledger and its checkpoints.

    Attributes:
        folder: of the study.
        file: what its study.yaml says.
        news: facts (commit, versions, device) that are others in this run than before.
    """

    def __init__(self, folder: Path, file: StudyFile) -> None:
        self.folder = folder
        self.file = file
        self.news: Mapping[str, str] = {}
        self._is_held = False

    @classmethod
    def open(cls, folder: str | Path, *, imports: bool = False) -> Self:
        """Open a study that is there, to be read.

        Args:
            imports: whether to run the modules that its `imports:` names, as `StudyFile.read` says.

        Raises:
            StudyError: the folder holds no study.
        """
        return cls(Path(folder), StudyFile.read(folder, imports=imports))

    @classmethod
    @contextmanager
    def begin(
        cls, folder: Path, asked: StudyFile, *, may_change: Sequence[str] = ()
    ) -> Iterator[Self]:
        """Create a study, or resume the one that is there, and hold it for this process alone.

        Args:
            folder: of the study; it is made where it is missing.
            may_change: parts of the space file that may differ from the study that is there.

        Raises:
            StudyError: the folder holds a study with other settings or cannot be written, or
                another driver is at work on it.
            StorageError, LedgerError: its ledger cannot be opened.
        """
        if folder.is_symlink() and has_study(folder.parent):
            raise StudyError(
                f"{folder}: is a link, and what lies elsewhere is no part of this study; take the "
                f"link away, or put the folder itself in its place"
            )
        with only_driver(folder):
            is_there = has_study(folder)
            known = StudyFile.read(folder) if is_there else _left_in_a_ledger(folder, asked)
            if known is None:
                _require_free(folder)
            study = cls(folder, resumed(folder, asked, known, may_change=may_change))
            file = study.file
            if known is not None and len(file.later) > len(known.later):
                study.news = {k: v for k, v in file.later[-1].items() if k != STARTED}
            _require_no_link(folder, file.storage)
            with only_client(file.storage, file.ledger) as hold:
                ledger = Ledger.at(folder, file.storage, file.ledger, hold)
                if known is not None and ledger is None:
                    raise Ledger.gone(folder, file)
                if ledger is not None:
                    study._require_own(ledger, may_change)
                    study._require_whole(ledger)
                study.ledger = ledger or Ledger.create(folder, file, hold)
                study._require_own_checkpoints()
                write_whole(folder / STUDY_FILE, file.dump())
                if study.keeps_elsewhere:
                    put_mark(study.checkpoints, study.mark)
                study.ledger.claim(study.mark, file, folder)
                yield study

    @cached_property
    def ledger(self) -> Ledger:
        """Its trials, to be read.

        Raises:
            StorageError, LedgerError: there is no ledger, or it cannot be opened.
        """
        return Ledger.open(self.folder)

    @property
    def name(self) -> str:
        """Its name."""
        return self.file.name

    @property
    def objectives(self) -> tuple[str, ...]:
        """What it optimises, the accuracy among them."""
        return self.file.space.objectives

    @property
    def info(self) -> StudyInfo:
        """The facts that stand above its figures: data, recipe, device, versions, commit."""
        return study_info(self.file, CostTable.read(self.folder))

    @property
    def checkpoints(self) -> str:
        """The folder or fsspec URL of its trials' checkpoints."""
        return location_of(self.folder, self.file.checkpoints)

    @property
    def keeps_elsewhere(self) -> bool:
        """Whether its checkpoints lie outside its folder."""
        return not Path(self.checkpoints).is_relative_to(self.folder.resolve())

    @property
    def mark(self) -> Mark:
        """The mark that all bears which it owns elsewhere."""
        home, inode = str(self.folder.resolve() / STUDY_FILE), self.folder.stat().st_ino
        return Mark(self.file.id, self.name, home, platform.node(), inode)

    @property
    def confirmation(self) -> Study | None:
        """The study that confirms its front; None where there is none."""
        return self._part(CONFIRM)

    @property
    def supernet(self) -> Study | None:
        """The study that has trained its supernet; None where there is none."""
        return self._part(SUPERNET)

    def parts(self) -> list[Study]:
        """Return the studies in its folder that can be read: confirmation, supernet, itself."""
        parts = [self]
        for name in (SUPERNET, CONFIRM):
            with suppress(StudyError):
                parts[:0] = filter(None, [self._part(name)])
        return parts

    def trial_checkpoints(self, number: int) -> str:
        """Return the folder or fsspec URL of one trial's checkpoints."""
        return trial_location(self.checkpoints, number)

    def records(self) -> pd.DataFrame:
        """Return one row a trial; `afi_search.study.ledger.COLUMNS` explains the columns."""
        return self.ledger.records()

    def front(self) -> pd.DataFrame:
        """Return the rows of the trials that no other beats in accuracy and cost at once."""
        return front(self.records())

    def reference_point(self) -> tuple[float, ...]:
        """Return the hypervolume's reference: (accuracy of guessing, twice the plain costs)."""
        records, info = self.records(), self.info
        return reference_point(measure_references(info, records), info, costs_of(records))

    def retention(self) -> CheckpointRetention:
        """Return what deletes the checkpoints that nothing needs, from now on."""
        return CheckpointRetention(self.checkpoints, self.objectives, self.ledger.trials())

    def disk_use(self) -> int:
        """Return the bytes of its folder, and of what it and its parts own and reach elsewhere."""
        return size_of(str(self.folder)) + sum(part._size_elsewhere() for part in self.parts())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the study, its confirmation and its promotions for this process alone.

        Raises:
            StudyError: a driver is at work on a part of the study.
            StorageError: a driver is at work on the study's ledger in a database.
        """
        if self._is_held:
            yield
            return
        promotions = (self.folder / PROMOTE).glob("*")
        folders = (self.folder / CONFIRM, self.folder / SUPERNET, *promotions)
        inner = [path for path in folders if path.is_dir() and not path.is_symlink()]
        with ExitStack() as stack:
            for folder in (*inner, self.folder):
                stack.enter_context(only_driver(folder))
            for part in self.parts():
                stack.enter_context(only_client(part.file.storage, part.file.ledger))
            self._is_held = True
            stack.callback(setattr, self, "_is_held", False)
            yield

    def elsewhere(self) -> list[Belonging]:
        """Return what of it and its confirmation lies outside its folder, owned or not."""
        found = []
        for name in (CONFIRM, SUPERNET):
            try:
                part = self._part(name)
            except StudyError:
                what = f"what the study {self.folder / name} may keep elsewhere"
                why = f"its damaged {STUDY_FILE} does not say"
                found.append(Belonging(what, why, delete=lambda: None))
            else:
                found += part._elsewhere() if part is not None else []
        return [*found, *self._elsewhere()]

    def require_owned(self) -> None:
        """Raise a StudyError where checkpoints of its elsewhere are not its own."""
        for part in self.parts():
            if not part.keeps_elsewhere:
                continue
            if foreign := why_not_owned(part.checkpoints, part.mark):
                raise StudyError(
                    f"{part.folder}: the checkpoints in {part.checkpoints} are not touched: the "
                    f"folder {foreign}"
                )

    def remove(self) -> None:
        """Delete the study and its confirmation: checkpoints, ledgers, then the folder.

        What the study has not written stays: other files in its folder, checkpoints and ledgers
        elsewhere that do not bear its mark, promotions' checkpoints elsewhere.

        Killed in between, what is left is a study without trials; study.yaml goes last, so that
        the same call finishes the work.

        Raises:
            StudyError, StorageError: a driver is at work on a part of the study.
            UserError: what lies elsewhere cannot be reached.
        """
        with self.held():
            for part in self.parts():
                for belonging in part._elsewhere():
                    if not belonging.foreign:
                        belonging.delete()
            for folder in (self.folder / CONFIRM, self.folder / SUPERNET, self.folder):
                if folder == self.folder or not folder.is_symlink():
                    delete_written(folder)

    def _elsewhere(self) -> list[Belonging]:
        mark, found = self.mark, []
        if self.keeps_elsewhere:
            what = f"the checkpoints in {self.checkpoints}"
            foreign = why_not_owned(self.checkpoints, mark)
            found.append(Belonging(what, foreign, partial(delete_checkpoints, self.checkpoints)))
        if in_database(self.file.storage):
            with suppress(LedgerError):  # it has been deleted
                owner = Ledger.open(self.folder).owner()
                foreign = owner.why_not_of(mark) if owner else "bears no mark of this study"
                what = f"the ledger {self.file.ledger} in {self.file.storage}"
                found.append(Belonging(what, foreign, self._delete_ledger))
        return found

    def _size_elsewhere(self) -> int:
        with suppress(UserError, OSError):
            if self.keeps_elsewhere and not why_not_owned(self.checkpoints, self.mark):
                return size_of(self.checkpoints)
        return 0

    def _delete_ledger(self) -> None:
        storage = open_storage(self.folder, self.file.storage)
        optuna.delete_study(study_name=self.file.ledger, storage=storage)

    def _require_own_checkpoints(self) -> None:
        """Refuse checkpoints elsewhere that are not the study's."""
        if not self.keeps_elsewhere:
            return
        adopts = is_named_for(self.checkpoints, self.name)  # of studies that had no mark yet
        if reason := why_not_owned(self.checkpoints, self.mark, adopts=adopts):
            raise StudyError(
                f"{self.folder}: its checkpoints would lie in {self.checkpoints}, which {reason}. "
                f"Resume the study there, or start another one with --name; afi-search study rm "
                f"{self.folder} deletes this one and leaves those checkpoints"
            )

    def _require_own(self, ledger: Ledger, may_change: Sequence[str]) -> None:
        """Refuse a ledger of another study, or of other settings than study.yaml has."""
        owner, settings = ledger.owner(), ledger.settings()
        mark = self.mark
        foreign = owner.why_not_of(mark) if owner is not None else ""
        if owner is not None and not in_database(self.file.storage) and owner.id == mark.id:
            foreign = ""  # the folder was copied with the ledger in it
        listed = (
            ""
            if settings is None
            else differences(fixed(settings.space, may_change), fixed(self.file.space, may_change))
        )
        if foreign or listed:
            raise StudyError(
                f"{self.folder}: its ledger {foreign or 'was made with other settings'}"
                f"{listed and ':'}\n{listed}".rstrip()
                + "\nResume the study there, or start another one with --name."
            )

    def _require_whole(self, ledger: Ledger) -> None:
        """Refuse a ledger that is older than the checkpoints, such as one from a backup."""
        known, newest = len(ledger.trials()), max(trials_in(self.checkpoints), default=-1)
        if newest >= known:
            raise StudyError(
                f"{self.folder}: its ledger has {known} trials, and there is a checkpoint of trial "
                f"{newest}: the ledger is an older copy. Put the newer one back, or let afi-search "
                f"study repair {self.folder} bring back what the checkpoints know"
            )

    def _part(self, name: str) -> Study | None:
        folder = self.folder / name
        return Study.open(folder) if has_study(folder) and not folder.is_symlink() else None

    def __repr__(self) -> str:
        states = self.records()["state"].value_counts()
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        return (
            f"<Study {self.name} in {self.folder}: {counts or 'no trials yet'}; "
            f"{len(self.front())} on the front>"
        )


def _left_in_a_ledger(folder: Path, asked: StudyFile) -> StudyFile | None:
    """Return the study whose study.yaml is gone from its folder, if there is one."""
    found = [name for name in FILES if has_file(folder, name)]
    for name in found or [asked.storage]:
        ledger = Ledger.at(folder, name, asked.ledger or asked.name)
        owner = None if ledger is None else ledger.owner()
        if ledger is None or (
            in_database(name) and (owner is None or Path(owner.home).parent != folder.resolve())
        ):
            continue
        if (before := ledger.settings()) is not None:
            return before
        if ledger.trials():
            raise _of_unknown_settings(folder, FILES[name])
    if trials_in(str(folder / IN_THE_FOLDER)):
        raise _of_unknown_settings(folder, IN_THE_FOLDER)
    return None


def _require_free(folder: Path) -> None:
    """Refuse a folder whose files, of other origin, a study would write over and call its own."""
    begun = (".", "ledger.", IN_THE_FOLDER)  # what a start leaves that is killed
    lost = [name for name in written_in(folder) if not name.startswith(begun)]
    if lost:
        raise StudyError(
            f"{folder}: is no study's folder, and a study would write over what is in it: "
            f"{', '.join(lost)}; move that away, or take another folder with --name or --studies"
        )


def _require_no_link(folder: Path, storage: str) -> None:
    """Refuse a ledger's file that has another name elsewhere, where another driver may hold it."""
    if in_database(storage):
        return
    path = folder / FILES[storage]
    if path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1):
        raise StudyError(
            f"{path}: is a link, and whoever writes to it changes another study's ledger; put a "
            f"copy in its place"
        )


def _of_unknown_settings(folder: Path, what: str) -> StudyError:
    return StudyError(
        f"{folder}: holds the {what} of a study whose {STUDY_FILE} is gone, and nothing says with "
        f"which settings it was made; put {STUDY_FILE} back, or begin in another folder with --name"
    )


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped a run: nothing is lost, its trials wait to be resumed.

    Attributes:
        study: that was stopped.

    >>> stopped = Interrupted(Study.open("studies/reference/resnet20-digits"))
    >>> stopped.study.name
    'resnet20-digits'
    """

    def __init__(self, study: Study) -> None:
        super().__init__(f"the study {study.name} was interrupted; it can be resumed")
        self.study = study
