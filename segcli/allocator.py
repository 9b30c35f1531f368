"""glibc's memory allocator, told to keep large blocks.

By itself it takes every block over 32 MiB fresh from the kernel and gives it back at once. A network's activations are
such blocks, and the kernel's zeroing of their pages, 4 KiB at a time, is up to a fifth of R50-FPN's time on a CPU.
"""

from __future__ import annotations

import ctypes
import os
import sys

# parameters of mallopt(3)
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_KEPT = 1 << 30  # bytes that may lie unused at the heap's end before they go back


def keep_large_blocks() -> bool:
    """Serve large blocks from the heap, where the next one finds them again.

    Returns:
        Whether it was done: not on systems without glibc, nor where the user's environment tunes the allocator.
    """
    tuned = "GLIBC_TUNABLES" in os.environ or any(n.startswith("MALLOC_") for n in os.environ)
    if tuned or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
