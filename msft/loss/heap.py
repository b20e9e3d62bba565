"""The heap of a process that trains on a processor."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of malloc.h
_GIB = 2**30


def keep_freed_blocks() -> None:
    """Lets glibc use freed blocks again instead of giving them back to the system.

    Every step frees gigabytes of activations, and takes them anew: given back, they fault in page by page. Where there is
    no glibc, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2 * _GIB - 1)
        mallopt(_TOP_PAD, _GIB // 4)
