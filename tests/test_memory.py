"""Memory that stays with the process."""

import os
import platform
import subprocess
import sys

import pytest

from sdm_lightning.memory import reuse_freed_memory

COUNT = """
import resource, numpy
from sdm_lightning.memory import reuse_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.empty(2**24, numpy.float32).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), faults(), reuse_freed_memory(), faults(), faults())
"""
GLIBC = platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not GLIBC, reason="other C libraries are left as they are")
def test_the_second_block_of_64_mib_needs_no_new_pages() -> None:
    free = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD" and "MALLOC_" not in k}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=free, capture_output=True, text=True, check=True
    )
    first, second, changed, third, fourth = done.stdout.split()
    assert changed == "True"
    assert int(fourth) <= 2
    # As it was before: pages are fetched for every block (fewer where the kernel gives large ones).
    assert min(int(first), int(second), int(third)) > 10


@pytest.mark.parametrize("name", ["LD_PRELOAD", "MALLOC_TRIM_THRESHOLD_"])
def test_the_users_own_choice_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    assert not reuse_freed_memory()
