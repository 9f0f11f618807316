"""A study's folder: what was asked for, where and with what it ran, and its ledger.

study.yaml      the resolved space file and the facts of the machine
ledger.log      every trial
checkpoints/    of trials that are not finished or whose weights are kept, unless they lie at a URL
confirm/        the study that confirms its front
supernet/       the study that has trained its supernet
promote/        a folder for each network that is trained on ImageNet
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from fcntl import LOCK_EX, LOCK_NB, flock
from io import StringIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from afi_search.errors import UserError, refusal
from afi_search.files import UNFINISHED
from afi_search.space import SpaceFile
from afi_search.space.document import Document
from afi_search.space.fields import check_name
from afi_search.space.mistakes import describe, explain
from afi_search.space.schema import DO_NOT_IMPORT, Pruner
from afi_search.study.checkpoint_location import (
    IN_THE_FOLDER,
    is_below,
    location_of,
    new_location,
)
from afi_search.study.facts import STARTED
from afi_search.study.ownership import delete_checkpoints, trials_in
from afi_search.study.storage import JOURNAL, in_database

STUDY_FILE = "study.yaml"
CONFIRM, PROMOTE, SUPERNET = "confirm", "promote", "supernet"
_WRITTEN = (
    *("ledger.log", "ledger.log.lock", "ledger.log.lock*.rename", "ledger.log.damaged-*"),
    *("ledger.db", "ledger.db-*", "ledger.db.damaged-*"),
    *("study.yaml.damaged-*", "costs.json", "latency.json"),
    *("front.csv", "front.json", "front.html", "front.png", "trials.csv", "report.html"),
    *("confirmed.csv", "confirmed.json", "analysis/gradcam.png", "analysis/selectivity.*"),
    *("analysis/weights*.png", "analysis/weights.csv", "analysis/memory.csv", ".lock"),
    *("tensorboard/*/events.out.tfevents.*", "mlflow.db"),
    *(f"{PROMOTE}/*/{name}" for name in ("history.csv", ".lock")),
    *(f"{PROMOTE}/*/model/{name}" for name in ("model.safetensors", "model.json", "README.md")),
    *(f"{at}.*{UNFINISHED}" for at in ("", "analysis/", f"{PROMOTE}/*/", f"{PROMOTE}/*/model/")),
)
_FOLDERS = (
    "analysis",
    "tensorboard/*",
    "tensorboard",
    f"{PROMOTE}/*/model",
    f"{PROMOTE}/*",
    PROMOTE,
)
_LOCK_FILE = ".lock"
_MOMENT = 0.2  # in which another process may look whether a driver is at work
_MAY_CHANGE = ("trials", "concurrency", "gpus_per_trial", "memory_per_trial")


class StudyError(UserError):
    """A study that is not there, is at work elsewhere, or cannot be resumed with these settings."""


class _Keys(BaseModel):
    """The keys of a study.yaml."""

    name: str
    preset: str
    note: str
    space: dict[str, Any]
    facts: dict[str, Any]
    storage: str = JOURNAL
    checkpoints: str = IN_THE_FOLDER
    id: str = ""
    ledger: str = ""
    later: list[dict[str, Any]] = []


class NotImported(StudyError):
    """Settings that a study's own modules may register, which are not imported unasked."""


@dataclass(frozen=True)
class StudyFile:
    """What study.yaml holds.

    Attributes:
        name: of the study; its folder has the same name when it is made.
        preset: of the space file, or an empty text.
        note: what its numbers are good for.
        space: the resolved space file.
        facts: command, start, commit, versions, device: names to texts.
        storage: of the ledger: `journal`, `sqlite` or a database's URL, without its password.
        checkpoints: where they lie: `checkpoints`, in the study's folder, or an fsspec URL.
        id: random, written into study.yaml when the study is created; empty until then, and in
            studies of version 0.1.0. This and what follows is not compared.
        ledger: the study's name in its storage. Empty until it is created: in a database it then
            gets the id too, where nobody has chosen the name.
        later: what later runs ran with that was another than before: facts, and when they started.

    Raises:
        StudyError: `afi_search.space.fields.check_name` refuses the name.
    """

    name: str
    preset: str
    note: str
    space: SpaceFile
    facts: Mapping[str, str]
    storage: str = JOURNAL
    checkpoints: str = IN_THE_FOLDER
    id: str = field(default="", compare=False)
    ledger: str = field(default="", compare=False)
    later: tuple[Mapping[str, str], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        try:
            check_name(self.name)
        except ValueError as error:
            raise StudyError(f"the study's name: {error}") from None

    def dump(self) -> str:
        """Return the YAML text."""
        stream, yaml = StringIO(), YAML()
        yaml.width = 100
        texts = ("name", "id", "ledger", "preset", "note", "storage", "checkpoints")
        settings = {
            **{name: getattr(self, name) for name in texts},
            "facts": dict(self.facts),
            "later": list(map(dict, self.later)),
            "space": self.space.model_dump(mode="json", exclude={"presets"}),
        }
        yaml.dump(settings, stream)
        return stream.getvalue()

    @classmethod
    def read(cls, folder: str | Path, *, imports: bool = False) -> StudyFile:
        """Read the study.yaml of a study's folder.

        Args:
            imports: whether to run the modules that its `imports:` names. Whoever wrote the file
                decides what they do; without them, what only they register is not known.

        Raises:
            StudyError: the folder has no such file, or no study wrote it.
        """
        path = Path(folder) / STUDY_FILE
        if not path.is_file():
            raise StudyError(f"{folder}: is not a study's folder; there is no {STUDY_FILE} in it")
        try:
            return cls.of(Document.read(path, StudyError), imports)
        except NotImported:
            raise
        except StudyError as error:
            raise StudyError(
                f"{error}\nafi-search study repair {folder} brings it back from the ledger; where "
                f"that cannot be, put a copy in its place, or move {folder} away"
            ) from None

    @classmethod
    def parse(cls, text: str, name: str, *, imports: bool = False) -> StudyFile:
        """Read the text of a study.yaml, that messages call by that name; raises as `read` does."""
        return cls.of(Document.parse(text, name, StudyError), imports)

    @classmethod
    def of(cls, document: Document, imports: bool) -> StudyFile:
        """Return what a study.yaml says; raises as `read` does, without the way out."""
        raw = document.data
        try:
            keys = _Keys.model_validate(raw, strict=True)
            space = SpaceFile.model_validate(
                _up_to_date(keys.space), context=None if imports else DO_NOT_IMPORT
            )
            if not space.backbones:
                raise StudyError("space: has neither a backbone nor architectures")
            known = {"space": space, "later": tuple(keys.later), "ledger": keys.ledger or keys.name}
            return cls(**dict(keys) | known)
        except ValidationError as error:
            if error.title == _Keys.__name__:
                raise StudyError(describe(document, explain(error, _Keys))) from None
            mistakes = describe(document, explain(error, SpaceFile, "space"))
            modules = raw["space"].get("imports")
            if modules and isinstance(modules, list) and not imports:
                raise NotImported(
                    f"{mistakes}\nIts modules ({', '.join(map(str, modules))}) may register that. "
                    f"They are not run unasked, as they do what they like; --imports runs them"
                ) from None
            raise StudyError(mistakes) from None
        except StudyError as error:
            raise StudyError(f"{document.name}: {error}") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise StudyError(
                f"{document.name}: is not a study.yaml that can be read: {error}"
            ) from None

    @property
    def environment(self) -> dict[str, str]:
        """What it was run with, by fact: as at its start, and what later runs had instead."""
        told = dict(self.facts)
        for run in self.later:
            for name in run.keys() - {STARTED}:
                since = run.get(STARTED, "later")
                told[name] = f"{told.get(name, 'unknown')}; {run[name]} since {since}"
        return told


def has_study(folder: Path) -> bool:
    """Whether a folder is a study's."""
    return (folder / STUDY_FILE).is_file()


def study_name(file: SpaceFile, preset: str | None) -> str:
    """Return the name of a study: what is searched, the data, the preset."""
    what = file.name or file.backbone or "architectures"
    return "-".join(filter(None, (what, file.data.name, preset)))


def resumed(
    folder: Path, asked: StudyFile, before: StudyFile | None, *, may_change: Sequence[str] = ()
) -> StudyFile:
    """Return the study to run: as asked, with what it keeps from `before`, if it is not new.

    Other settings, those of `may_change` aside, are a StudyError that lists them.
    """
    if before is None:
        identity = secrets.token_hex(8)
        shared = f"{asked.name}-{identity}" if in_database(asked.storage) else asked.name
        location = new_location(asked.checkpoints, asked.name)
        ledger = asked.ledger or shared
        return replace(asked, checkpoints=location, id=identity, ledger=ledger)
    stays = is_below(before.checkpoints, asked.checkpoints)
    may_move = not trials_in(location_of(folder, before.checkpoints))
    wanted = before.checkpoints if stays or may_move else asked.checkpoints
    listed = differences(
        _settings(before, before.checkpoints, may_change), _settings(asked, wanted, may_change)
    )
    if listed:
        raise StudyError(
            f"{folder}: was started with other settings, and its trials would not compare:\n"
            f"{listed}\n"
            f"Take the settings back, in {STUDY_FILE} where that was edited, or start another "
            f"study with --name."
        )
    return replace(
        asked,
        facts=before.facts,
        checkpoints=before.checkpoints if stays else new_location(asked.checkpoints, asked.name),
        id=before.id or secrets.token_hex(8),
        ledger=before.ledger,
        later=(*before.later, *_news(before, asked.facts)),
    )


def written_in(folder: Path) -> list[str]:
    """Return the names of what a study has written into its folder."""
    patterns = (STUDY_FILE, IN_THE_FOLDER, CONFIRM, SUPERNET, PROMOTE, *_WRITTEN)
    paths = (path for pattern in patterns for path in folder.glob(pattern))
    return sorted({path.relative_to(folder).parts[0] for path in paths})


def delete_written(folder: Path) -> None:
    """Delete what a study has written into its folder, study.yaml last; all else stays.

    Where `folder` is a link, and that leaves nothing behind it, the link goes, too.
    """
    from afi_search.train.checkpoint import delete

    if (folder / IN_THE_FOLDER).is_symlink():
        (folder / IN_THE_FOLDER).unlink()
    for checkpoints in _inside(folder, IN_THE_FOLDER, f"{PROMOTE}/*/{IN_THE_FOLDER}"):
        delete(str(checkpoints))
        if checkpoints.is_dir():
            delete_checkpoints(str(checkpoints))
    for path in _inside(folder, *_WRITTEN, STUDY_FILE):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
    for emptied in (*_inside(folder, *_FOLDERS), folder.resolve()):
        with suppress(OSError):  # what the study has not written is in it
            emptied.rmdir()
    if folder.is_symlink() and not folder.exists():
        folder.unlink()


def _inside(folder: Path, *patterns: str) -> Iterator[Path]:
    """Yield what is there by those names, but through links to elsewhere."""
    here = folder.resolve()
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            if path.parent.resolve().is_relative_to(here):
                yield path


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Hold the study for this process alone; the operating system lets go when the process ends.

    Raises:
        StudyError: another driver is at work on the study, or its folder cannot be written.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(folder / _LOCK_FILE, timeout=_MOMENT))
            held.enter_context(_locked(folder))
        except (Timeout, BlockingIOError):
            raise StudyError(
                f"{folder}: another driver is at work on this study; wait for it, or stop it first"
            ) from None
        except OSError as error:
            raise StudyError(
                f"{folder}: cannot be written ({refusal(error)}); make it writable, or take a "
                f"folder that is"
            ) from None
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder itself, too: lock files are deleted by people who wonder what they are."""
    place = os.open(folder, os.O_RDONLY)
    try:
        try:
            flock(place, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # that file system locks files only
            pass
        yield
    finally:
        os.close(place)


def is_at_work(folder: Path) -> bool:
    """Whether a driver is at work on the study in a folder."""
    if not (folder / _LOCK_FILE).exists():
        return False
    try:
        with only_driver(folder):
            return False
    except StudyError:
        return True


def _up_to_date(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a study of afi_search 0.1.0 or later under the keys of today."""
    pruner = space["search"]["pruner"]
    renamed = {Pruner.renamed.get(key, key): value for key, value in pruner.items()}
    return {**space, "search": {**space["search"], "pruner": renamed}}


def _settings(study: StudyFile, checkpoints: str, may_change: Sequence[str]) -> dict[str, Any]:
    where = {"storage": study.storage, "checkpoints": checkpoints}
    return {**fixed(study.space, may_change), **where}


def _news(before: StudyFile, facts: Mapping[str, str]) -> list[dict[str, str]]:
    """Return what a run has that the one before it had not, and when it started."""
    known = dict(before.facts)
    for run in before.later:
        known.update(run)
    names = facts.keys() - {"command", STARTED}
    news = {name: facts[name] for name in sorted(names) if facts[name] != known.get(name)}
    return [{STARTED: facts.get(STARTED, "now"), **news}] if news else []


def fixed(file: SpaceFile, may_change: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings that must stay as they are while a study grows."""
    search: dict[str, Any] = {**dict.fromkeys(_MAY_CHANGE, True), "supernet": {"scores"}}
    if file.search.pruner.name == "none":
        search["pruner"] = Pruner.model_fields.keys() - {"name"}
    return file.model_dump(
        mode="json",
        exclude={
            **dict.fromkeys(may_change, True),
            "presets": True,
            "imports_from": True,
            "confirm": True,
            "promote": True,
            "data": {"folder"},
            "search": search,
        },
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> str:
    """Return a line for each setting that differs; an empty text where none does.

    >>> print(differences({"recipe": {"lr": 0.1}}, {"recipe": {"lr": 0.2}}))
      recipe.lr: 0.1 in the study, 0.2 now
    """
    lines = []
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            lines.append(differences(was, now, f"{path}{key}."))
        elif was != now:
            lines.append(f"  {path}{key}: {was!r} in the study, {now!r} now")
    return "\n".join(filter(None, lines))
