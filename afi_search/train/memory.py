"""Memory that one step frees and the next one takes again."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's <malloc.h>
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next step.

    Left alone, glibc's malloc hands features, which are megabytes, back to the kernel with every
    step, and the kernel clears each of their pages again when the next step touches it. The process
    holds on to what it once needed, and to no more. Where the C library is another one, nothing is
    changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _NEVER)
