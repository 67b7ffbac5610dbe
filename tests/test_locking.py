"""Locks of files, and what this package does where there is no fcntl."""

import errno
import multiprocessing
import os
import subprocess
import sys
import types
from contextlib import nullcontext
from pathlib import Path

import pytest

from sdm_lightning import files, locking
from sdm_lightning.cli.run_directory import only_fit
from sdm_lightning.files import append_lines
from sdm_lightning.locking import lock

PACKAGE = Path(locking.__file__).parent


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """Windows' locks: of bytes of a file, by number of the file and position."""
    locked: set[tuple[int, int]] = set()

    def locking_function(descriptor: int, mode: int, count: int) -> None:
        byte = (os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        if byte in locked:
            raise PermissionError(13, "Permission denied")
        locked.add(byte)

    fake = types.SimpleNamespace(LK_NBLCK=2, locking=locking_function)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(locking, "fcntl", None)
    return locked


def test_a_second_lock_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "f", "a") as first, open(tmp_path / "f", "a") as second:
        lock(first.fileno())
        with pytest.raises(BlockingIOError):
            lock(second.fileno())
        first.close()
        lock(second.fileno())


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("flock", "lockf"):
        monkeypatch.setattr(locking.fcntl, name, refuse)
    other = pytest.raises(OSError, match="Input/output error")
    with other if number == errno.EIO else nullcontext():
        append_lines(tmp_path / "f", b"a\n")
        with only_fit(tmp_path):
            pass


def test_on_windows_too(tmp_path: Path, windows: set[tuple[int, int]]) -> None:
    with open(tmp_path / "f", "a+") as first, open(tmp_path / "f", "a") as second:
        first.write("who")
        first.flush()
        lock(first.fileno())
        assert first.tell() == 3
        with pytest.raises(BlockingIOError):
            lock(second.fileno())
        ((_, position),) = windows
        assert position > os.path.getsize(tmp_path / "f")  # others can read what it says


def test_a_lock_of_windows_is_waited_for(
    tmp_path: Path, windows: set[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking.time, "sleep", lambda _: windows.clear())
    for _ in range(2):
        with open(tmp_path / "f", "a") as file:
            lock(file.fileno(), wait=True)


def test_lines_are_appended_on_windows(
    tmp_path: Path, windows: set[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def binary(path: Path, flags: int, mode: int, real=os.open) -> int:
        opened.append(flags)
        return real(path, flags & ~(1 << 30), mode)

    monkeypatch.delattr(os, "pread")
    monkeypatch.setattr(os, "O_BINARY", 1 << 30, raising=False)
    monkeypatch.setattr(files.os, "open", binary)
    (tmp_path / "f").write_bytes(b"a\nhalf")
    append_lines(tmp_path / "f", b"b\n")
    windows.clear()
    append_lines(tmp_path / "f", b"c\n")
    assert (tmp_path / "f").read_bytes() == b"a\nhalf\nb\nc\n"
    assert all(flags & 1 << 30 for flags in opened)


def try_to_lock(path: Path, refused) -> None:
    with open(path, "a") as file:
        try:
            lock(file.fileno(), inherited=False)
        except BlockingIOError:
            refused.set()


def test_a_lock_that_is_not_inherited_keeps_a_child_out(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    refused = context.Event()
    with open(tmp_path / "f", "a") as file:
        lock(file.fileno(), inherited=False)
        child = context.Process(target=try_to_lock, args=(tmp_path / "f", refused))
        child.start()
        child.join()
    assert refused.is_set()


def test_what_windows_lacks_is_not_needed() -> None:
    code = (
        "import os, signal, sys\n"
        "sys.modules['fcntl'] = None\n"
        "for name in ('SIGUSR1', 'SIGUSR2', 'SIGKILL', 'SIGHUP'): delattr(signal, name)\n"
        "for name in ('pread', 'posix_fadvise', 'sched_getaffinity'): delattr(os, name)\n"
        "import sdm_lightning.data.shards.packing\n"
        "from sdm_lightning.data.loader import outlive_signals\n"
        "outlive_signals(0)\n"
        "from sdm_lightning.signals import leave_when_signalled\n"
        "with leave_when_signalled(): pass"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "place"), [("import fcntl", "locking.py"), ("signal.SIGUSR1", ""), ("os.pread", "")]
)
def test_what_windows_lacks_is_named_in_one_place(name: str, place: str) -> None:
    users = [p.name for p in PACKAGE.rglob("*.py") if name in p.read_text(encoding="utf-8")]
    assert "".join(users) == place
