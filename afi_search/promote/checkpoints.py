"""Where a promotion's checkpoints lie: a folder or any fsspec URL, tried before hours are spent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec

from afi_search.errors import UserError

_MARK = ".afi_search-can-write"


class Unreachable(UserError):
    """A place for checkpoints that cannot be read or written."""


def demand_writable(url: str) -> None:
    """Make sure that checkpoints can be written to `url`, by writing and removing an empty file.

    Raises:
        Unreachable: they cannot, or nothing is installed that could.
    """
    with reachable(url):
        filesystem, folder = fsspec.core.url_to_fs(url)
        mark = f"{folder.rstrip('/')}/{_MARK}"
        filesystem.makedirs(folder, exist_ok=True)
        filesystem.pipe_file(mark, b"")
        filesystem.rm_file(mark)


@contextmanager
def reachable(url: str) -> Iterator[None]:
    """Tell what goes wrong with `url` as a person's mistake: each file system has its own errors.

    Raises:
        Unreachable: anything but a UserError was raised.
    """
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        advice = "pip install 'afi-search[s3]'" if url.startswith(("s3:", "s3a:")) else str(error)
        raise Unreachable(f"checkpoints {url}: nothing installed can read it: {advice}") from None
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise Unreachable(f"checkpoints {url}: cannot be read or written: {reason}") from None
