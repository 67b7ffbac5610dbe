"""How this process gets its memory."""

import ctypes
import os
import sys

# From <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_TWO_GIB = 2**31 - 1


def reuse_freed_memory() -> bool:
    """Let the C library keep freed blocks for the next tensor instead of returning them at once.

    By default it maps every block above 32 MiB anew, and the kernel clears its pages when they are
    first written: on a CPU that costs more than the arithmetic of an activation or a sum, and a
    sixth of a 512x512 iteration. Up to 2 GiB of freed memory stay with the process. Every ``sdm``
    command calls this; programs that use the package from Python can call it before their first
    tensor.

    Returns:
        Whether it was done: only with glibc, and not where ``MALLOC_...`` variables or a preloaded
        allocator say that the user has chosen otherwise.
    """
    chosen = "LD_PRELOAD" in os.environ or any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _TWO_GIB))
