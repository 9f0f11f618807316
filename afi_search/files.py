"""Files that other processes see whole or not at all."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from uuid import uuid4

from afi_search.formatting import printable

if TYPE_CHECKING:
    from pandas import DataFrame

UNFINISHED = ".unfinished"
"""How the name of a file ends that is being written; a killed process leaves it."""
Content = str | bytes | memoryview
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?|[+-]?inf", re.IGNORECASE)
_SECRET = re.compile(  # before a host, in place of its port, or as an option by its name
    r"(?:^|/)[^/?#@]*:(?!//|\d+/)[^?#@]*@"
    r"|//[^/?#@[]*:(?!\d*(?:[/?#]|$))"
    r"|(?:pass(?!file)|pwd|secret|token|(?:access|account|api|shared)_?key|\bsig)\w*\s*=",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def write_whole(path: Path, content: Content) -> Path:
    """Write a file as `write_together` does; return it."""
    return write_together(path.parent, {path.name: content})[0]


def write_together(
    folder: Path, contents: Mapping[str, Content], outdated: Collection[str] = ()
) -> list[Path]:
    """Write files beside their places, make sure that they are on disk, and move all there.

    Missing folders are made. Where one cannot be written, what stood there before still stands, all
    of it. The files `outdated` are deleted before the first is moved. Returns the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = {name: folder / f".{name}.{os.getpid()}{UNFINISHED}" for name in contents}
    try:
        for name, content in contents.items():
            if isinstance(content, str):  # with paths in it, perhaps, that are no UTF-8
                content = content.encode(errors="backslashreplace")
            with unfinished[name].open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for name in outdated:
            (folder / name).unlink(missing_ok=True)
        for name in contents:
            unfinished[name].replace(folder / name)
    except OSError as error:  # of a file that nobody knows
        raise OSError(error.errno, error.strerror, str(folder / name)) from None
    finally:
        for path in unfinished.values():
            with suppress(OSError):  # it has been moved, or never was
                path.unlink()
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
    return [folder / name for name in contents]


def open_url(url: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return the file system and the path of a folder or file, local or a URL.

    A URL begins with `scheme://`; all else is a local path, whatever is in it: fsspec itself takes
    `::` in a path for a chain of URLs.

    >>> open_url("/studies/exp::2")[1]
    '/studies/exp::2'
    """
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    text = os.fspath(url)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return LocalFileSystem(), str(Path(text).absolute())
    kind = fsspec.get_filesystem_class(scheme[1])
    return kind(**kind._get_kwargs_from_urls(text)), str(kind._strip_protocol(text))


def require_there(url: str | os.PathLike[str]) -> None:
    """Raise a FileNotFoundError where a local folder is gone: what was moved is not made again."""
    if _SCHEME.match(os.fspath(url)) is None:
        Path(url).stat()


def has_secret(url: str) -> bool:
    """Whether a URL holds a password or a key, wherever it stands and however it is encoded.

    >>> has_secret("postgresql://me@host/d?options=-c%20password%3Dx"), has_secret("s3://bucket/a")
    (True, False)
    """
    while url != (url := unquote(url)):
        pass
    return _SECRET.search(url) is not None


def without_secret(url: str) -> str:
    """Return a URL for a message: where it holds a secret, no more than what it begins with."""
    scheme = _SCHEME.match(url)
    begins = scheme[0] if scheme else ""
    return f"{begins}..." if has_secret(url) else url


def write_once(url: str, make: Callable[[], str]) -> str:
    """Return the one line in the file `url`; where there is none, write what `make` returns.

    Of several processes that do so at a time, all return what the first has written. (On an object
    store, whose files cannot be made exclusively, what the last of them has.)
    """
    filesystem, path = open_url(url)
    filesystem.invalidate_cache()
    if not filesystem.exists(path):
        filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        _write_new(filesystem, path, make())
    return str(filesystem.cat_file(path).decode()).strip()


def _write_new(filesystem: Any, path: str, line: str) -> None:
    from fsspec.implementations.local import LocalFileSystem

    content = f"{line}\n".encode()
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


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: numpy's scalars as Python's, NaN, inf and NaT as null."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value != value or value in (math.inf, -math.inf):
        return None
    return value


def csv_of(table: DataFrame, **options: Any) -> str:
    """Return a table without its index as CSV, no text of which a spreadsheet or terminal obeys.

    Texts that begin as formulas do are led by an apostrophe, as OWASP advises ("CSV Injection").
    """
    texts = table.select_dtypes(include=["object", "string"])
    safe = table.assign(**{str(name): texts[name].map(_no_formula) for name in texts})
    return printable(safe.to_csv(index=False, lineterminator="\n", **options))


def _no_formula(value: Any) -> Any:
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value
