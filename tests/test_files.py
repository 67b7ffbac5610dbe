"""Files written whole or not at all."""

import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest

from sdm_lightning import files
from sdm_lightning.errors import InputError
from sdm_lightning.files import atomic_file, check_writable, sha256_of_file, write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")

    def write():
        with atomic_file(path) as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert path.read_text() == "old"


def test_the_new_content_replaces_the_old_in_a_folder_that_is_created(tmp_path):
    path = tmp_path / "new" / "f"
    write_atomically(path, b"bytes")
    write_atomically(path, "é")
    assert path.read_bytes() == b"\xc3\xa9"
    write_atomically(path, "caf\udce9.png")  # as Python reads a name that is not UTF-8
    assert path.read_bytes() == rb"caf\udce9.png"
    assert [p.name for p in path.parent.iterdir()] == ["f"]


@pytest.mark.parametrize("name", ["x" * 255, "\u732b" * 85])
def test_names_as_long_as_a_file_system_takes(tmp_path, name):
    write_atomically(tmp_path / name, "content")
    assert (tmp_path / name).read_text() == "content"


def test_a_power_cut_finds_the_old_or_the_new_content(tmp_path, monkeypatch):
    """Content is on disk before the name points to it, and the name before we go on."""
    path = tmp_path / "f"
    order = []

    def fsync(descriptor, real=os.fsync):
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"
        if kind == "file":
            assert os.fstat(descriptor).st_size == len("content")  # nothing left in a buffer
        order.append((kind, path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(path, "content")
    assert order == [("file", False), ("folder", True)]


def test_no_folder_is_opened_on_windows(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(sys, "platform", "win32")
    write_atomically(tmp_path / "f", "content")
    assert (tmp_path / "f").read_text() == "content"


def test_looking_whether_a_file_can_be_written_leaves_nothing(tmp_path):
    check_writable(tmp_path / "new" / "folder" / "f")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/new/f: cannot be written"):
        check_writable(tmp_path / "file" / "new" / "f")


@pytest.mark.parametrize("function", ["write", "replace"])
def test_an_error_names_the_file_that_was_wanted(tmp_path, monkeypatch, function):
    def refuse(*paths):
        raise PermissionError(13, "Permission denied", str(paths[0]), None, str(paths[-1]))

    if function == "replace":  # onto a file that is open, on Windows
        monkeypatch.setattr(Path, "replace", refuse)
    else:
        monkeypatch.setattr(files, "_EarlyFile", refuse)
    with pytest.raises(PermissionError) as raised:
        write_atomically(tmp_path / "f", "content")
    assert raised.value.filename == str(tmp_path / "f")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="not on this system")
def test_large_files_are_on_their_way_to_the_disk_before_the_end(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, *rest: asked.append(start))
    parts = [bytes([number]) * (5 << 20) for number in range(4)]
    with atomic_file(tmp_path / "f") as file:
        for part in parts:
            file.write(part)
    assert asked == [0, 10 << 20]
    assert (tmp_path / "f").read_bytes() == b"".join(parts)


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "f", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_the_checksum_is_that_of_the_content(tmp_path):
    content = os.urandom((1 << 20) + 3)
    (tmp_path / "f").write_bytes(content)
    assert sha256_of_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()
