"""Errors that the user can cause and correct: printed without a traceback, exit code 2."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from difflib import get_close_matches

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_OF_THE_PATH = {
    *(errno.EACCES, errno.EPERM, errno.ENOENT),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
}
_OF_THE_MEMORY = (
    "can't allocate memory",
    "could not create a primitive",
    "failed to map segment",
)
"""How PyTorch, oneDNN and the loader of libraries say that they were given none."""


class UserError(Exception):
    """A mistake in what the user wrote or asked for; the command line prints it and exits with 2.

    The message names the file, the key, the value and what would be right.

    >>> import afi_search
    >>> try:
    ...     afi_search.measure("resnet33", num_classes=10, image_size=32)
    ... except afi_search.UserError as error:
    ...     print(error)  # doctest: +ELLIPSIS
    unknown backbone 'resnet33'. Did you mean 'resnet32'? There are: resnet20, ...
    """


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the option closest to `word`, or "" where none is close.

    >>> did_you_mean("resnet33", ["resnet32", "mobilenetv2"])
    " Did you mean 'resnet32'?"
    """
    by_lower_case = {option.lower(): option for option in options}
    close = get_close_matches(word.lower(), list(by_lower_case), n=1, cutoff=0.6)
    close = close or [option for option in by_lower_case if word.lower().startswith(f"{option}_")]
    return f" Did you mean {by_lower_case[close[0]]!r}?" if close else ""


def refusal(error: OSError) -> str:
    """Say which file the machine refuses, and why.

    >>> refusal(PermissionError(13, "Permission denied", "/a/b"))
    '/a/b: Permission denied'
    """
    if error.filename is None or error.strerror is None:
        return str(error) or type(error).__name__
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that the machine gave this process no memory.

    >>> lacks_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    True
    """
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OF_THE_MEMORY)


def last_line(error: object) -> str:
    """Return the last line of what an error says, or its kind where it says nothing.

    >>> last_line(KeyError())
    'KeyError'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def to_mend(error: Exception) -> str:
    """Say what a person has to mend, where trying again cannot help; "" where it may.

    >>> to_mend(OSError(28, "No space left on device", "/a/b"))
    '/a/b: No space left on device'
    >>> to_mend(ConnectionResetError(104, "Connection reset by peer"))
    ''
    """
    if isinstance(error, OSError):
        return refusal(error) if error.errno in _OF_THE_DISK | _OF_THE_PATH else ""
    return str(error) if isinstance(error, UserError) else ""
