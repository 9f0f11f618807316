"""A decision that is made once, and that everybody takes over from then on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem


def agreed(url: str, decide: Callable[[], str]) -> str:
    """Return what the file `url` says; where there is none, write what `decide` returns.

    Of several processes that decide at a time, all return what the first has written. (On an
    object store, whose files cannot be made exclusively, what the last of them has.)

    Args:
        url: a local path or any fsspec URL; missing folders are made.
        decide: makes the decision, one line.
    """
    filesystem, path = fsspec.core.url_to_fs(os.fspath(url))
    filesystem.invalidate_cache()
    if not filesystem.exists(path):
        filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        _write(filesystem, path, decide())
    return str(filesystem.cat_file(path).decode()).strip()


def _write(filesystem: fsspec.AbstractFileSystem, path: str, decision: str) -> None:
    content = f"{decision}\n".encode()
    if not isinstance(filesystem, LocalFileSystem):
        filesystem.pipe_file(path, content)
        return
    aside = Path(f"{path}.{uuid4().hex}")
    aside.write_bytes(content)
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    except OSError:  # A file system without hard links.
        if not Path(path).exists():
            shutil.copyfile(aside, path)
    aside.unlink()
