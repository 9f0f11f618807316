"""Fetching an archive, so that a cut-short one is never taken for whole."""

from __future__ import annotations

import hashlib
import tarfile
import urllib.request
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any
from urllib.error import HTTPError, URLError

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

CONNECT_SECONDS = 8.0
STALL_SECONDS = 20.0
CHUNK = 1 << 18


class DownloadFailed(Exception):
    """The archive did not come; the message is the reason."""


def file_md5(path: Path) -> str:
    """Return a file's MD5 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def fetch(url: str, target: Path, md5: str, label: str) -> None:
    """Download `url` to the file `target`, with a progress bar or else a line on stderr.

    Raises:
        DownloadFailed: no connection within CONNECT_SECONDS, nothing received for STALL_SECONDS,
            no room on the disk, or what came has another MD5.
    """
    response = _within(CONNECT_SECONDS, partial(urllib.request.urlopen, url, timeout=STALL_SECONDS))
    digest = _md5()
    try:
        with response, target.open("wb") as file, _progress() as progress:
            if not progress.console.is_terminal:
                progress.console.print(f"Downloading {label}", soft_wrap=True)
            task = progress.add_task(f"Downloading {label}", total=response.length)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                progress.advance(task, len(chunk))
    except (OSError, HTTPException) as error:
        raise DownloadFailed(f"{url} broke off: {error}") from error
    if digest.hexdigest() != md5:
        raise DownloadFailed(
            f"{url} sent {target.stat().st_size} bytes that are not the archive (their MD5 is "
            f"{digest.hexdigest()} and should be {md5})"
        )


def extract(archive: Path, folder: Path) -> None:
    """Unpack a tar archive into `folder`; names that lead out of it are refused.

    Raises:
        DownloadFailed: the archive cannot be unpacked.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DownloadFailed(f"{archive} cannot be unpacked: {error}") from error


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _within(seconds: float, connect: Callable[[], Any]) -> Any:
    """Return `connect()`; give up after `seconds`, also where name resolution hangs.

    A socket's timeout does not cover the look-up of the host's name, so the call runs in a
    daemon thread, which is left behind when it does not answer.
    """
    answers: Queue[Any] = Queue()

    def call() -> None:
        try:
            answers.put(connect())
        except Exception as error:
            answers.put(error)

    Thread(target=call, daemon=True, name="afi-search-download").start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise DownloadFailed(f"no connection within {seconds:.0f} seconds") from None
    if isinstance(answer, HTTPError):
        raise DownloadFailed(f"{answer.url} answered {answer.code} {answer.reason}") from answer
    if isinstance(answer, URLError):
        raise DownloadFailed(f"no connection: {answer.reason}") from answer
    if isinstance(answer, Exception):
        raise DownloadFailed(f"no connection: {answer}") from answer
    return answer


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
