"""Checkpoints of one trial: a folder, local or any fsspec URL, with its last two epochs.

A local file is written beside its final name, flushed to the disk and renamed, so that a name
always means a whole file. Object stores show an object only once all of it is there. Should the
newest file be unreadable all the same, the one before it is taken, and one epoch is trained again.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from fsspec.implementations.local import LocalFileSystem

from afi_search.errors import UserError
from afi_search.files import UNFINISHED, open_url, write_whole

KEPT = 2
FORMAT = "afi_search checkpoint 1"
_NAME = re.compile(r"epoch-(\d{6})\.pt")


class CorruptCheckpoint(UserError):
    """A checkpoint is cut short, damaged, or not one of ours; the message names the file."""


class CheckpointWarning(UserWarning):
    """The newest checkpoint could not be read and an older one was taken."""


def save(state: dict[str, Any], url: str) -> str:
    """Write `state` to the folder `url` as its epoch, and drop all but two; return the file."""
    filesystem, folder = _open_folder(url)
    epoch = int(state["epoch"])
    target = f"{folder}/epoch-{epoch:06d}.pt"
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    if isinstance(filesystem, LocalFileSystem):
        write_whole(Path(target), buffer.getbuffer())
    else:
        filesystem.makedirs(folder, exist_ok=True)
        filesystem.pipe_file(target, buffer.getvalue())
    files = _files(filesystem, folder)
    earlier = sorted(other for other in files.values() if other is not None and other < epoch)
    keep = {None, epoch, *earlier[-(KEPT - 1) :]}
    for path, of in files.items():
        if path.endswith(UNFINISHED) or of not in keep:
            with suppress(FileNotFoundError):
                filesystem.rm_file(path)
    return target


def load(url: str) -> dict[str, Any] | None:
    """Return the newest readable state of the folder `url`, on the CPU; None where there is none.

    An unreadable newer file is passed over with a CheckpointWarning that names it; where none of
    them can be read, a CorruptCheckpoint says so.
    """
    filesystem, folder = _open_folder(url)
    unreadable: list[CorruptCheckpoint] = []
    epochs = [epoch for epoch in _files(filesystem, folder).values() if epoch is not None]
    for epoch in sorted(epochs, reverse=True):
        try:
            state = _read(filesystem, f"{folder}/epoch-{epoch:06d}.pt")
        except CorruptCheckpoint as error:
            unreadable.append(error)
            continue
        for reason in unreadable:
            warnings.warn(f"{reason} Going on from epoch {epoch}.", CheckpointWarning, stacklevel=2)
        return state
    if unreadable:
        raise CorruptCheckpoint("\n".join(map(str, unreadable)))
    return None


def load_file(url: str) -> dict[str, Any]:
    """Return the state in one checkpoint file, on the CPU; a CorruptCheckpoint: there is none."""
    filesystem, path = open_url(url)
    return _read(filesystem, path)


def delete(url: str) -> None:
    """Delete the checkpoints of the folder `url`, and the folder where nothing else is in it."""
    filesystem, folder = _open_folder(url)
    for path, epoch in _files(filesystem, folder).items():
        if path.endswith(UNFINISHED) or epoch is not None:
            filesystem.rm_file(path)
    with suppress(OSError):
        filesystem.rmdir(folder)


def _open_folder(url: str) -> tuple[Any, str]:
    filesystem, folder = open_url(url)
    filesystem.invalidate_cache()
    return filesystem, folder.rstrip("/")


def _files(filesystem: Any, folder: str) -> dict[str, int | None]:
    """Return the files of a folder, each with the epoch that it has by its name."""
    try:
        paths = sorted(filesystem.ls(folder, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    names = {path: _NAME.fullmatch(path.rsplit("/", 1)[-1]) for path in paths}
    return {path: int(name[1]) if name else None for path, name in names.items()}


def _read(filesystem: Any, path: str) -> dict[str, Any]:
    try:
        if filesystem.info(path)["type"] != "file":  # nothing may ever write into a pipe
            raise FileNotFoundError
        content = io.BytesIO(filesystem.cat_file(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise CorruptCheckpoint(f"checkpoint {path} is not a file.") from error
    try:
        with zipfile.ZipFile(content) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"its part {damaged} is damaged")
        content.seek(0)
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise CorruptCheckpoint(f"checkpoint {path} cannot be read: {reason}.") from error
    if not isinstance(state, dict) or state.pop("format", None) != FORMAT:
        raise CorruptCheckpoint(f"checkpoint {path} was not written by afi_search.")
    return state
