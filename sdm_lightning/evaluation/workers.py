"""How many processes to start where nobody said."""

import os


def default_workers(most: int = 8) -> int:
    """One per core that this process may use (a cluster job often gets fewer than there are)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    return min(cores, most)
