"""Location of a study's checkpoints: its folder, or a URL that all nodes of a cluster reach."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from afi_search.errors import UserError, did_you_mean
from afi_search.files import has_secret, open_url, without_secret

IN_THE_FOLDER = "checkpoints"


def check_url(url: str | None) -> str:
    """Return what `--checkpoints` gives, a local folder as an absolute path.

    Without any, it is the name of the folder inside the study's. A UserError says that nothing can
    be kept there, or that the URL holds a password.
    """
    if url is None:
        return IN_THE_FOLDER
    protocol, separator, _ = url.partition("://")
    if not separator:
        return str(Path(url).expanduser().absolute())
    if has_secret(url):
        raise UserError(
            f"--checkpoints {without_secret(url)}: leave the password out, it would be written "
            f"into study.yaml; the file system's own settings or environment hold it"
        )
    if protocol == "memory":
        raise UserError(f"--checkpoints {url}: one process's memory is no place for checkpoints")
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError:
        known = fsspec.available_protocols()
        raise UserError(
            f"--checkpoints {url}: there is no file system {protocol!r}."
            f"{did_you_mean(protocol, known)} Like: file:///shared/folder, s3://bucket/folder"
        ) from None
    except ImportError as error:
        raise UserError(f"--checkpoints {url}: {error}") from None
    return url.rstrip("/")


def new_location(checkpoints: str, study: str) -> str:
    """Return a location of a new study's own below that URL: no other study ever has it."""
    if checkpoints == IN_THE_FOLDER:
        return checkpoints
    return f"{checkpoints}/{study}-{secrets.token_hex(4)}"


def is_below(location: str, checkpoints: str) -> bool:
    """Whether a study's location is one that `new_location` gives for that URL."""
    return checkpoints in (location, location.rpartition("/")[0])


def is_named_for(location: str, study: str) -> bool:
    """Whether a location has a name that `new_location` gives to studies of that name."""
    name = location.rpartition("/")[2]
    return re.fullmatch(rf"{re.escape(study)}-[0-9a-f]{{8}}", name) is not None


def location_of(folder: Path, checkpoints: str) -> str:
    """Return the folder or URL of all checkpoints of the study that lies in `folder` now."""
    return checkpoints if "://" in checkpoints else str((folder / checkpoints).resolve())


def trial_location(location: str, number: int) -> str:
    """Return the folder or URL of a trial's checkpoints."""
    return f"{location}/{number:05d}"


def size_of(location: str) -> int:
    """Return the bytes of all files below a folder or fsspec URL; 0 where there is none."""
    filesystem, folder = open_url(location)
    filesystem.invalidate_cache()
    if isinstance(filesystem, LocalFileSystem):  # whose own way ends at a link loop
        below = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
        return sum(file.lstat().st_size for file in below if os.path.lexists(file))
    try:
        return int(filesystem.du(folder))
    except FileNotFoundError:
        return 0
