"""What a study owns outside its folder: only what bears its mark is ever deleted.

A study.yaml can be copied, sent or edited; the checkpoints and the ledger in a database that it
names may then be another study's. So these bear a mark of their own: the study's random id, its
name, and where its study.yaml lay when a driver last held it. Where checkpoints cannot be reached
or changed, each function here raises a UserError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from afi_search.errors import UserError
from afi_search.files import open_url
from afi_search.study.checkpoint_location import trial_location

MARK_FILE = ".afi_search-study"
_TRIAL = re.compile(r"[0-9]{5,}")
_CHOICE = re.compile(r".+\.(precision|way)(\.[0-9a-f]{32})?")
"""What is decided once for all processes, and what one leaves that is killed as it writes it."""


@dataclass(frozen=True)
class Mark:
    """Whose something is.

    Attributes:
        id: of the study, random.
        name: of the study, for messages.
        home: the path of its study.yaml.
        host: the machine on which a driver last held it; empty in older marks.
        inode: of its folder, the same from wherever it is seen; 0 in older marks.
    """

    id: str
    name: str
    home: str
    host: str = ""
    inode: int = 0

    def why_not_of(self, study: Mark) -> str:
        """Say why what bears this mark is not that study's; an empty text where it is."""
        folder = Path(self.home).parent
        if self.id != study.id and self.home == study.home:
            return (
                f"belongs to the study that was here, and study.yaml is another's now: take that "
                f"away, and afi-search study repair {folder} writes the right one"
            )
        if self.id != study.id:
            return f"belongs to the study {self.name} in {folder}"
        if self._has_stayed_when(study):
            return f"belongs to {folder}, of which this study is a copy"
        if self.host not in ("", study.host) and not self.inode == study.inode != 0:
            here = Path(study.home).parent
            return (
                f"belongs to {folder} on {self.host}, of which this study is a copy, as far as can "
                f"be seen from here (if it was moved, afi-search study repair {here} makes it its "
                f"own)"
            )
        return ""

    def may_have_moved_to(self, study: Mark) -> bool:
        """Whether it is that study's, if that has not been copied on another machine."""
        return self.id == study.id and not self._has_stayed_when(study)

    def _has_stayed_when(self, study: Mark) -> bool:
        home = Path(self.home)
        try:
            if not home.is_file() or home.samefile(study.home):
                return False
            return self.id in home.read_text(encoding="utf-8")
        except OSError:  # what cannot be read may be the study
            return True


def why_not_owned(location: str, study: Mark, *, adopts: bool = False) -> str:
    """Say why checkpoints at a location are not that study's; an empty text where they are.

    An empty location is anybody's. `adopts`: checkpoints without any mark are the study's, too.
    """
    with _reached(location) as (filesystem, folder):
        names = _names(filesystem, folder)
    if MARK_FILE not in names:
        return "bears no mark of this study" if names and not adopts else ""
    mark = mark_at(location)
    if mark is None:
        return f"bears a mark that cannot be read ({MARK_FILE})"
    return mark.why_not_of(study)


def mark_at(location: str) -> Mark | None:
    """Return the mark at a location of checkpoints; None where none can be read."""
    with _reached(location) as (filesystem, folder):
        try:
            return Mark(**json.loads(filesystem.cat_file(f"{folder}/{MARK_FILE}")))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def put_mark(location: str, study: Mark) -> None:
    """Mark a location as that study's; it is made where it is missing."""
    with _reached(location) as (filesystem, folder):
        filesystem.makedirs(folder, exist_ok=True)
        filesystem.pipe_file(f"{folder}/{MARK_FILE}", json.dumps(asdict(study)).encode())


def trials_in(location: str) -> list[int]:
    """Return the numbers of the trials that have a folder of checkpoints at a location."""
    with _reached(location) as place:
        names = _names(*place)
    return sorted(int(name) for name in names if _TRIAL.fullmatch(name))


def delete_checkpoints(location: str) -> None:
    """Delete what a study has written at its location, the mark last; all else stays."""
    from afi_search.train.checkpoint import delete

    with _reached(location) as (filesystem, folder):
        for number in trials_in(location):
            delete(trial_location(location, number))
        names = _names(filesystem, folder)
        for name in (*filter(_CHOICE.fullmatch, names), MARK_FILE):
            if name in names:
                filesystem.rm_file(f"{folder}/{name}")
        with suppress(OSError):
            filesystem.rmdir(folder)


def _names(filesystem: Any, folder: str) -> set[str]:
    filesystem.invalidate_cache()
    try:
        paths = filesystem.ls(folder, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {path.rstrip("/").rpartition("/")[2] for path in paths}


@contextmanager
def _reached(location: str) -> Iterator[tuple[Any, str]]:
    try:
        yield open_url(location)
    except Exception as error:
        raise UserError(f"the checkpoints in {location} cannot be reached: {error}") from None
