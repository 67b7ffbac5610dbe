"""The default number of worker processes."""

import os


def usable_cores() -> int:
    """Return the number of cores that this process may use, which a cluster job may limit."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def default_workers() -> int:
    """Return the number of processes that prepare data for one that computes: at most 8."""
    return min(usable_cores(), 8)
