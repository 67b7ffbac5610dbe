"""The default number of worker processes."""

import os


def default_workers(most: int = 8) -> int:
    """Return the cores that this process may use, which a cluster job may limit."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    return min(cores, most)
