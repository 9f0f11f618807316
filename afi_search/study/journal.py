"""The ledger's file: Optuna's journal, one line of JSON an operation, appended and never changed.

A line costs a tenth of what SQLite takes for the same, and the file works on shared folders (NFS),
where SQLite's write-ahead log does not. Optuna's own file backend waits for the disk at every line
and trusts the file's last line to be whole; ours differs in just that.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock


class Journal(JournalFileBackend):
    """A journal in a file.

    A killed process loses nothing; a power failure may cost the last lines, which the workers'
    checkpoints bring back. What a full disk lets through only in part is taken back, so that a
    line is there whole or not at all.

    Args:
        path: of the file; it is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._alone = JournalFileSymlinkLock(str(path))
        super().__init__(str(path), self._alone)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations.

        Raises:
            OSError: they cannot be written; the file is then as it was.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._alone.acquire()
        try:
            _append_whole(self._path, lines)
        finally:
            self._alone.release()

    def drop_unfinished_line(self) -> None:
        """Cut off a last line that a power failure left unfinished; for its one writer."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            os.truncate(self._path, whole)


def _append_whole(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        before = os.fstat(file).st_size
        try:
            while content:
                content = content[os.write(file, content) :]
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)
