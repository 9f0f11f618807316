"""The ledger in a file: Optuna's journal, a line of JSON an operation, appended and never changed.

A line costs a tenth of what SQLite takes for the same, and the file works on shared folders (NFS),
where SQLite's write-ahead log does not. Optuna's own backend waits for the disk at every line, and
trusts that a line which is there is whole. Ours waits where a trial begins or changes its state: a
killed process loses nothing, and a power failure costs the last epochs' lines, which the workers'
checkpoints bring back. What follows the last line's end is what a power failure left of the next;
everything else that is no operation of a ledger is refused with its line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._storage import JournalOperation as Op
from optuna.storages.journal._storage import JournalStorageReplayResult
from optuna.trial import FrozenTrial, TrialState

from afi_search.errors import UserError
from afi_search.files import write_whole
from afi_search.study.operations import Log, read_operation

DAMAGED = ".damaged"
_BROUGHT_BACK = {Op.SET_TRIAL_INTERMEDIATE_VALUE, Op.SET_TRIAL_USER_ATTR, Op.SET_TRIAL_SYSTEM_ATTR}
_BEGIN, _EPOCH = Op.CREATE_TRIAL, Op.SET_TRIAL_INTERMEDIATE_VALUE  # to look one up takes 0.2 us
UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)
_BEGINS = b'{"op_code":'
_LEAST_OF_A_TRIAL = 200  # bytes

_SECONDS_OF_A_LOCK = 4
"""A lock is held while a line is written; an older one was left by a killed process."""


class StorageError(UserError):
    """The ledger's storage cannot be used."""


class DamagedLedger(StorageError):
    """A ledger's file holds something that is no operation; the message names the line."""

    def __init__(self, path: Path, line: int, why: str) -> None:
        super().__init__(
            f"{path}:{line}: {why}. Nothing is lost and nothing was changed: afi-search study "
            f"repair {path.parent} keeps all lines that are whole and sets the others aside"
        )


class Journal(JournalFileBackend):
    """The file, which is made where it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._alone = JournalFileSymlinkLock(str(path), grace_period=_SECONDS_OF_A_LOCK)
        super().__init__(str(path), self._alone)

    def read_logs(self, log_number_from: int) -> Iterator[Log]:  # type: ignore[override]
        """Yield the operations from a number on, from 0; a DamagedLedger: a line is none."""
        with self.path.open("rb") as stream:
            ends = stream.seek(self._log_number_offset[log_number_from])
            for number, line in enumerate(stream, start=log_number_from + 1):
                if not line.endswith(b"\n"):
                    return  # another process is writing it, or was when the power failed
                self._log_number_offset[number] = ends = ends + len(line)
                try:
                    log = read_operation(line)
                except ValueError as error:
                    raise DamagedLedger(self.path, number, str(error)) from None
                yield log

    def append_logs(self, logs: list[Log]) -> None:
        """Append operations, in place of a last line that a power failure left unfinished.

        Raises:
            OSError, StorageError: the lines cannot be written; the file is then as it was.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        matters = any(log.get("op_code") not in _BROUGHT_BACK for log in logs)
        self._alone.acquire()
        try:
            read = next(reversed(self._log_number_offset.values()))
            _append_whole(self.path, lines, read, on_disk=matters)
        finally:
            self._alone.release()


class LedgerJournal(JournalStorage):
    """Optuna's storage on a journal; a line that is no operation of a ledger is a DamagedLedger."""

    def __init__(self, journal: Journal) -> None:
        self._path = journal.path
        self._is_read = False
        try:
            super().__init__(journal)
        except (UserError, OSError):
            raise
        except Exception as error:  # whatever Optuna meets in a line that is not its own
            line, why = self._replay_result.log_number_read, f"cannot be read ({error!r})"
            raise DamagedLedger(self._path, line, why) from None
        self._replay_result.__class__ = JournalStorageReplayResult

    def _write_log(self, op_code: int, extra_fields: dict[str, Any]) -> None:
        if op_code == Op.CREATE_TRIAL:  # by which a line that stands elsewhere is told
            self._sync_with_backend()
            extra_fields = {"trial_id": len(self._replay_result._trials), **extra_fields}
        super()._write_log(op_code, extra_fields)

    def _sync_with_backend(self) -> None:
        if not self._is_read:
            self._is_read, self._replay_result = True, _FirstReading(self._worker_id_prefix)
        known = self._replay_result
        known.apply_logs(self._checked(self._backend.read_logs(known.log_number_read)))

    def _checked(self, logs: Iterable[Log]) -> Iterator[Log]:
        known = self._replay_result
        for log in logs:
            if why := _why_out_of_place(log, known):
                raise DamagedLedger(self._path, known.log_number_read + 1, why)
            yield log


class _FirstReading(JournalStorageReplayResult):
    """What Optuna makes of a journal's lines, in half of the time that it takes for thousands.

    Trials of a study have their choices from the same lists, each of which is read once; and as
    nobody holds a trial yet, a line changes it where it is, instead of a copy. Most lines are an
    epoch, whose trial is there and has not ended, or `_why_out_of_place` had refused it.
    """

    def apply_logs(self, logs: Iterable[Log]) -> None:
        for log in logs:
            if log["op_code"] == _EPOCH:
                self.log_number_read += 1
                epochs = self._trials[log["trial_id"]].intermediate_values
                epochs[log["step"]] = log["intermediate_value"]
            else:
                super().apply_logs([log])

    def _apply_create_trial(self, log: Log) -> None:
        before = len(self._trials)
        super()._apply_create_trial(log | {"distributions": {}, "params": {}})
        if len(self._trials) > before:
            trial = self._trials[before]
            offered = log.get("distributions", {}).items()
            trial.distributions = {name: _distribution(text) for name, text in offered}
            trial.params = {
                name: trial.distributions[name].to_external_repr(value)
                for name, value in log.get("params", {}).items()
            }

    def _apply_set_trial_user_attr(self, log: Log) -> None:
        if self._trial_exists_and_updatable(log["trial_id"], log):
            self._trials[log["trial_id"]].user_attrs.update(log["user_attr"])


_distribution = cache(json_to_distribution)


def read_trial(path: Path, number: int) -> FrozenTrial | None:
    """Return one trial of a journal without reading the others; None where there is none.

    Raises:
        Exception: of any kind, where a line is damaged.
    """
    known = _FirstReading("")
    begins, about = b'{"op_code":%d,' % Op.CREATE_TRIAL, b'"trial_id":%d,' % number
    begun = 0
    with path.open("rb") as stream:
        for line in stream:
            if not line.startswith(_BEGINS):
                raise DamagedLedger(path, 0, "is no operation of a ledger")
            begun += line.startswith(begins)
            if begun == 0 or (line.startswith(begins) and begun == number + 1) or about in line:
                log = read_operation(line) | ({"trial_id": 0} if about in line else {})
                if why := _why_out_of_place(log, known):
                    raise DamagedLedger(path, 0, why)
                known.apply_logs([log])
    for trial in known._trials.values():
        trial.number = number
        return trial
    return None


def mend(
    path: Path,
    study: Log,
    lost: Callable[[int], FrozenTrial],
    trained: Callable[[int], Mapping[int, float]],
) -> tuple[int, list[int]]:
    """Rewrite a journal with all that is whole in it, and set the rest aside in a file beside it.

    Args:
        study: `study_name` and `directions`, for where the line that says so is gone.
        lost: returns what is to stand for the trial of a number whose first line is gone: trials
            are counted, so that none may be missing.
        trained: returns the epochs that a trial's checkpoint knows, with their accuracies.

    Returns:
        How many pieces of lines were set aside, and the numbers of the trials whose first line was
        among them.
    """
    known = JournalStorageReplayResult("")
    whole: list[Log] = []
    aside: list[bytes] = []
    missing: list[int] = []
    hidden = 0  # lines that may be in what was set aside

    def enter(log: Log) -> None:
        if _why_out_of_place(log, known):
            raise ValueError
        known.apply_logs([log])
        whole.append(log)

    pieces = _each_end_last(list(_pieces(path.read_bytes())))
    begins = {log["trial_id"]: log for _, log in pieces if log and _numbered(log)}
    moved: set[int] = set()  # identities of lines that were entered before their place
    for piece, log in pieces:
        if id(log) in moved:
            continue
        if log is not None and hidden and not known._next_study_id:
            enter({"op_code": Op.CREATE_STUDY, "worker_id": "", **study})
        try:
            before = log.get("trial_id", -1) + (not _numbered(log)) if log else 0
            while (number := len(known._trials)) < before:
                if number in begins:
                    begins_it = begins.pop(number)
                    moved.add(id(begins_it))
                    enter(begins_it)
                elif before <= number + hidden:
                    missing.append(number)
                    enter(_begin(number, lost(number)))
                    hidden -= 1
                else:
                    break
            enter(log or {})
        except Exception:  # whatever Optuna meets in a line that is not its own
            aside.append(piece)
            hidden += 1 + len(piece) // _LEAST_OF_A_TRIAL
    if aside:
        set_aside(path, b"\n".join(aside) + b"\n")
    logs = _with_lost_epochs(whole, known, trained)
    write_whole(path, "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs))
    return len(aside), missing


def _each_end_last(pieces: list[tuple[bytes, Log | None]]) -> list[tuple[bytes, Log | None]]:
    """Return the pieces with what ends a trial after all else about it."""
    last = {log["trial_id"]: at for at, (_, log) in enumerate(pieces) if log and "trial_id" in log}

    def place(numbered: tuple[int, tuple[bytes, Log | None]]) -> tuple[int, bool]:
        at, (_, log) = numbered
        if log and _ends_a_trial(log):
            return last[log["trial_id"]], True
        return at, False

    return [piece for _, piece in sorted(enumerate(pieces), key=place)]


def _ends_a_trial(log: Log) -> bool:
    of_state = log["op_code"] == Op.SET_TRIAL_STATE_VALUES
    return of_state and TrialState(log["state"]).is_finished()


def _with_lost_epochs(
    logs: Iterable[Log],
    known: JournalStorageReplayResult,
    trained: Callable[[int], Mapping[int, float]],
) -> Iterator[Log]:
    """Yield operations, and before a trial ends the epochs that its checkpoint alone knows."""
    for log in logs:
        if _ends_a_trial(log):
            number = log["trial_id"]
            entered = known._trials[number].intermediate_values
            for epoch, accuracy in trained(number).items():
                if epoch not in entered:
                    yield {
                        "op_code": Op.SET_TRIAL_INTERMEDIATE_VALUE,
                        "worker_id": "",
                        "trial_id": number,
                        "step": epoch,
                        "intermediate_value": accuracy,
                    }
        yield log


def _pieces(content: bytes) -> Iterator[tuple[bytes, Log | None]]:
    """Yield the lines, and the operation each is; of a damaged one, all pieces that can be one."""
    for line in filter(None, content.split(b"\n")):
        pieces = re.split(b"(?=%s)" % re.escape(_BEGINS), line) if _read(line) is None else [line]
        for piece in filter(None, pieces):
            yield piece, _read(piece.strip(b"\0"))


def attribute_in(path: Path, key: str) -> Any:
    """Return what a study was last given under a name, from the lines that are whole; or None."""
    logs = (log for _, log in _pieces(path.read_bytes()) if log is not None)
    found = (log["user_attr"] for log in logs if log["op_code"] == Op.SET_STUDY_USER_ATTR)
    return next((each[key] for each in reversed(list(found)) if key in each), None)


def set_aside(path: Path, content: bytes | None = None) -> Path:
    """Keep what a file held, or a part of it, in a file of its own beside it; return that."""
    content = path.read_bytes() if content is None else content
    names = (path.with_name(f"{path.name}{DAMAGED}-{number}") for number in count(1))
    return write_whole(next(name for name in names if not name.exists()), content)


def _read(piece: bytes) -> Log | None:
    try:
        return read_operation(piece)
    except ValueError:
        return None


def _numbered(log: Log) -> bool:
    """Whether an operation begins a trial and says which; in older ledgers none does."""
    return log["op_code"] == Op.CREATE_TRIAL and "trial_id" in log


def _why_out_of_place(log: Log, known: JournalStorageReplayResult) -> str:
    trial, study = log.get("trial_id"), log.get("study_id")
    if log["op_code"] == _BEGIN:
        if trial not in (None, len(known._trials)):
            return f"begins trial {trial}, and trial {len(known._trials)} would be the next"
        trial = None
    if trial is not None:
        if trial >= len(known._trials):
            return f"is about trial {trial}, which no line before it begins"
        has_ended = known._trials[trial].state not in UNFINISHED
        if has_ended and not known._is_issued_by_this_worker(log):  # which Optuna raises
            return f"is about trial {trial}, which a line before it has ended"
    if study is not None and study >= known._next_study_id:
        return f"is about study {study}, which no line before it begins"
    if "state" in log and log["state"] == TrialState.COMPLETE:
        values = log.get("values") or [log.get("value")]
        of = known._studies[
            known._trial_id_to_study_id[log["trial_id"]] if study is None else study
        ]
        if None in values or len(values) != len(of.directions):
            return f"completes a trial with {values} for {len(of.directions)} objectives"
        epochs = log.get("intermediate_values", ())
        if not (epochs if trial is None else known._trials[trial].intermediate_values):
            return "completes a trial that has trained no epoch"
    return ""


def _begin(number: int, trial: FrozenTrial) -> Log:
    """Return the operation that begins a trial, as the ledger writes it."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return {
        "op_code": Op.CREATE_TRIAL,
        "worker_id": "",
        "trial_id": number,
        "study_id": 0,
        "datetime_start": now,
        **({"datetime_complete": now} if trial.state.is_finished() else {}),
        "state": trial.state,
        "distributions": {k: distribution_to_json(d) for k, d in trial.distributions.items()},
        "params": {k: trial.distributions[k].to_internal_repr(p) for k, p in trial.params.items()},
        "user_attrs": trial.user_attrs,
        "intermediate_values": trial.intermediate_values,
    }


def _append_whole(path: Path, content: bytes, read: int, *, on_disk: bool) -> None:
    """Append to a file of which so many bytes were read."""
    file = os.open(path, os.O_RDWR | os.O_APPEND)
    try:
        before = os.fstat(file).st_size
        if before < read:
            raise StorageError(
                f"{path} is shorter than it was: another program has cut it. Put the whole one "
                f"back, or let afi-search study repair {path.parent} bring back what the "
                f"checkpoints know"
            )
        if before and os.pread(file, 1, before - 1) != b"\n":
            before = path.read_bytes().rfind(b"\n") + 1
            os.ftruncate(file, before)
        try:
            while content:
                content = content[os.write(file, content) :]
            if on_disk:
                os.fsync(file)
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)
