"""Locks on open files; the system ends them when the file is closed or the process ends."""

import errno
import importlib
import os
import time
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Some file systems of clusters have no locks; training goes on without one.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

# A byte beyond the end of every file: Windows lets nobody else read or write what is locked.
_FAR = 2**31 - 2


def lock(descriptor: int, *, wait: bool = False, inherited: bool = True) -> None:
    """Lock a file against other processes that lock it; where there are no locks, do nothing.

    Args:
        descriptor: Of the file, open for writing.
        wait: Wait for a process that has the lock.
        inherited: Processes forked from this one hold the lock too, until all have ended. Never
            so on Windows.

    Raises:
        BlockingIOError: Another process has the lock, and ``wait`` is off.
    """
    if fcntl is not None:
        how = fcntl.flock if inherited else fcntl.lockf
        try:
            how(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return
    msvcrt: Any = importlib.import_module("msvcrt")
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _FAR, os.SEEK_SET)
    try:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                break
            except PermissionError:
                if not wait:
                    raise BlockingIOError(errno.EAGAIN, "locked by another process") from None
            time.sleep(0.05)  # LK_LOCK, which waits by itself, gives up after ten seconds
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)
