"""The fault matrix of data: what is wrong with a set of shards, and the line that a user reads."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import json
import os
import shutil
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdm_lightning.cli.main import main
from sdm_lightning.data.decode import MAX_ENCODED_BYTES
from sdm_lightning.data.samples import open_samples
from sdm_lightning.data.shards.index import ShardIndex
from sdm_lightning.data.shards.indexing import index_shards
from sdm_lightning.data.shards.packing import pack_shards
from sdm_lightning.data.shards.reading import RawSample, ShardReader, scan_shard
from sdm_lightning.data.sources import ZipSource, open_source
from sdm_lightning.errors import InputError
from tests.data.shard_tools import encoded, make_images, make_shards, photo, write_tar


def read(index: ShardIndex, **options: object) -> list[RawSample]:
    reader = ShardReader(**options)
    return [sample for shard in index.shards for sample in reader.read(shard)]


# -- shards that are not what was packed -----------------------------------------------------


def test_a_cut_at_any_byte_of_a_shard_without_an_index(tmp_path: Path) -> None:
    """A cut between two members is the one place that no tar shows."""
    path = write_tar(tmp_path / "a.tar", {f"{k}.png": encoded(photo(k)) for k in range(2)})
    data = path.read_bytes()
    boundaries = {0, *(512 * block for block in range(len(data) // 512 + 1))}
    silent: list[tuple[int, int]] = []
    lines = set()
    for size in range(0, len(data), 37):
        path.write_bytes(data[:size])
        try:
            samples, *_ = scan_shard(str(path))
        except InputError as error:
            lines.add(str(error).partition(" (")[0])
        else:
            silent.append((size, len(samples)))
    assert lines == {f"{path}: truncated or damaged tar"}
    assert all(size in boundaries or count == 2 for size, count in silent)


def test_an_index_that_lists_a_shard_twice_or_impossible_counts(tmp_path: Path) -> None:
    make_shards(tmp_path, 2, 1)
    path = tmp_path / "shards" / "index.json"
    good = json.loads(path.read_text())
    for change, says in (
        ({"shards": [good["shards"][0]] * 2}, "twice"),
        ({"shards": [{**good["shards"][0], "samples": -1}]}, "impossible counts"),
        ({"shards": [{**good["shards"][0], "bytes": float("inf")}]}, "damaged index"),
        ({"shards": [{**good["shards"][0], "name": "a\0b.tar"}]}, "not a plain file name"),
        ({"shards": [{**good["shards"][0], "name": "\ud800.tar"}]}, "not a plain file name"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=says):
            ShardIndex.load(tmp_path / "shards")
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"not a readable index \(nested too deeply\)"):
        ShardIndex.load(tmp_path / "shards")


# -- members ---------------------------------------------------------------------------------


def raw_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    buffer = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    number = (size % 256**11).to_bytes(11, "big")
    buffer[124:136] = (b"\xff" if size < 0 else b"\x80") + number
    buffer[148:156] = b" " * 8
    buffer[148:156] = b"%06o\0 " % sum(buffer)
    return bytes(buffer)


def pax(record: bytes) -> bytes:
    length = len(record) + 3
    length += len(str(length)) - 1
    body = b"%d %s\n" % (length, record)
    return raw_header("x", len(body), tarfile.XHDTYPE) + body.ljust(512, b"\0")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (raw_header("a.png", 1 << 60), "has 1152921504606846976 bytes; at most"),
        (raw_header("a.png", -512), "a header states -512 bytes"),
        (pax(b"size=-512") + raw_header("a.png", 0), "a header states -512 bytes"),
        (raw_header("x", 1 << 40, tarfile.XHDTYPE), "an extended header of 1099511627776 bytes"),
        (raw_header("x", 1 << 40, tarfile.GNUTYPE_LONGNAME), "an extended header of"),
        (raw_header("a.png", 0, tarfile.GNUTYPE_SPARSE), "sparse member a.png"),
        (
            pax(b"GNU.sparse.size=9000000000000") + raw_header("a.png", 0),
            "sparse member a.png",
        ),
        (raw_header("a.png", 0)[:300], "truncated header"),
        (b"\x01" * 512, "invalid header"),
    ],
)  # fmt: skip
def test_tar_headers_that_lie(tmp_path: Path, content: bytes, says: str) -> None:
    """Before: terabytes of zeros in memory, an endless loop, or an end without a word."""
    path = tmp_path / "a.tar"
    image = encoded(photo(0))
    padding = bytes(-len(image) % 512)
    path.write_bytes(raw_header("ok.png", len(image)) + image + padding + content)
    with pytest.raises(InputError, match=says):
        scan_shard(str(path))
    if "at most" not in says and b"GNU.sparse" not in content:
        with pytest.raises(InputError, match="not a readable tar"):
            open_source(path).entries()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../a.png", "leads out of its folder"),
        ("/a.png", "leads out of its folder"),
        ("a\nb.png", "control characters"),
        ("a\x1b[2Jb.png", "control characters"),
        ("k" * 230 + ".png", "longer than 200 bytes"),
        ("d/" * 40 + "a.png", "more than 32 folders deep"),
    ],
)
def test_keys_that_are_no_file_names(tmp_path: Path, name: str, says: str) -> None:
    write_tar(tmp_path / "a.tar", {name: encoded(photo(0))})
    with pytest.raises(InputError, match=says):
        index_shards(str(tmp_path), num_workers=0)


def test_one_key_twice_with_others_between(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "b.png", "a.png"):
            info = tarfile.TarInfo(name)
            info.size = len(encoded(photo(0)))
            tar.addfile(info, io.BytesIO(encoded(photo(0))))
    with pytest.raises(InputError, match="sample a comes twice"):
        index_shards(str(tmp_path), num_workers=0)


def test_links_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(photo(9)))
    for folder, kind in (("s", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE)):
        (tmp_path / folder).mkdir()
        with tarfile.open(tmp_path / folder / "a.tar", "w") as tar:
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = kind, str(secret)
            tar.addfile(link)
            info = tarfile.TarInfo("ok.png")
            info.size = len(encoded(photo(0)))
            tar.addfile(info, io.BytesIO(encoded(photo(0))))
        assert [e.name for e in open_source(tmp_path / folder / "a.tar").entries()] == ["ok.png"]
        index_shards(str(tmp_path / folder), num_workers=0)
        assert [s.key for s in read(ShardIndex.load(tmp_path / folder))] == ["ok"]


# -- bombs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.bz2", "tar.xz", "tar.zst"])
def test_a_compressed_tar_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(gzip.compress(write_tar(tmp_path / "a", {"a.png": b"x"}).read_bytes()))
    (tmp_path / "a").unlink()
    for refused in (
        lambda: pack_shards(str(path), str(tmp_path / "out"), num_workers=0),
        lambda: index_shards(str(tmp_path), num_workers=0),
        lambda: ShardIndex.load(path),
        lambda: open_samples(str(path), ShardReader()),
        lambda: open_samples(str(tmp_path), ShardReader()),
        lambda: open_source(path),
    ):
        with pytest.raises(InputError, match=rf"{path}: .*; unpack it and give the folder or the "):
            refused()
    assert list(tmp_path.iterdir()) == [path]


def test_zip_members_of_other_compression_and_of_impossible_size(tmp_path: Path) -> None:
    """One read of 4 kB of bzip2 gives gigabytes; zipfile does not stop at the stated size."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("bomb.png", bytes(1 << 20))
    source = open_source(path)
    (entry,) = source.entries()
    with pytest.raises(OSError, match="is compressed by bzip2; images are stored or deflated"):
        source.read(entry)
    huge = dataclasses.replace(entry, size=MAX_ENCODED_BYTES + 1)
    with pytest.raises(OSError, match="at most 1073741824 are read"):
        source.read(huge)


def test_zip_members_without_a_name(tmp_path: Path) -> None:
    """They are no images; Python's zipfile fails when asked whether they are folders."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encoded(photo(1)))
        archive.writestr(zipfile.ZipInfo(""), b"x")
    assert [entry.name for entry in ZipSource(str(path)).entries()] == ["a.png"]


def test_zip_members_that_overlap(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encoded(photo(0, 40, 40)))
        info = archive.infolist()[0]
        for number in range(20):
            copy = zipfile.ZipInfo(f"{number}.png")
            copy.header_offset, copy.CRC = info.header_offset, info.CRC
            copy.file_size = copy.compress_size = info.file_size
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    with pytest.raises(InputError, match="members of this zip overlap"):
        ZipSource(str(path)).entries()


# -- a server that misbehaves ----------------------------------------------------------------


class Server:
    """Answers each request on the loopback by the next of its scripts, then by the last one."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.scripts: list[object] = []
        self.requests = 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                script = self.scripts[min(self.requests, len(self.scripts) - 1)]
                self.requests += 1
                with contextlib.suppress(OSError):
                    script(connection)


def answer(body: bytes, length: int | None = None, status: str = "200 OK"):
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n"
    return lambda connection: connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(2000):  # 2 GB, if anybody reads on
        connection.sendall(bytes(1 << 20))


def silent(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    connection.settimeout(5)
    connection.recv(1)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.socket.close()


def remote(tmp_path: Path, server: Server) -> tuple[ShardIndex, bytes]:
    local = make_shards(tmp_path, 2, 2)
    server.scripts = [answer((tmp_path / "shards" / "index.json").read_bytes())]
    index = ShardIndex.load(f"{server.url}/shards")
    server.requests = 0
    return index, Path(local.shards[0].url).read_bytes()


@pytest.mark.parametrize("cache", [False, True])
def test_a_connection_that_is_cut_and_comes_back(tmp_path: Path, server, cache: bool) -> None:
    index, data = remote(tmp_path, server)
    cut, broken = answer(data[:5000], len(data)), answer(b"", status="503 Busy")
    server.scripts = [cut, broken, cut, answer(data)]
    options = {"cache_dir": str(tmp_path / "cache")} if cache else {}
    assert len(read(index, **options)) == 2
    assert server.requests == 4
    server.scripts, server.requests = [cut], 0
    if cache:
        shutil.rmtree(tmp_path / "cache")
    with pytest.raises(InputError, match=rf"{server.url}/shards/shard-.*tar: "):
        read(index, **options)
    assert server.requests == 3
    assert not cache or list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("cache", [False, True])
def test_a_server_that_never_stops_sending(tmp_path: Path, server, cache: bool) -> None:
    index, _ = remote(tmp_path, server)
    server.scripts = [endless]
    options = {"cache_dir": str(tmp_path / "cache")} if cache else {}
    with pytest.raises(InputError, match=r"more than|do not match the index|truncated or damaged"):
        read(index, attempts=1, **options)
    with pytest.raises(InputError, match="more than 67108864 bytes"):
        ShardIndex.load(f"{server.url}/shards")


def test_a_server_that_falls_silent(tmp_path: Path, server, monkeypatch) -> None:
    index, _ = remote(tmp_path, server)
    monkeypatch.setattr("sdm_lightning.data.shards.remote._TIMEOUT_SECONDS", 0.2)
    server.scripts = [silent]
    with pytest.raises(InputError, match="timed out"):
        read(index, attempts=1)
    with pytest.raises(InputError, match=r"index cannot be read \(timed out\)"):
        ShardIndex.load(f"{server.url}/shards")


@pytest.mark.parametrize(
    ("script", "says", "requests"),
    [
        (answer(b"", status="404 Not Found"), "not found on the server", 1),
        (answer(b"", status="403 Forbidden"), "the server replies 403 Forbidden", 1),
        (answer(b"", status="500 Oops"), r"cannot be reached \(500 Oops\); tried 4 times", 4),
        (answer(b"", status="429 Slow"), r"cannot be reached \(429 Slow\); tried 4 times", 4),
        (lambda connection: connection.sendall(b"\x16\x03 not HTTP\r\n"), "shards/shard-", 3),
        (lambda connection: None, r"cannot be reached .*; tried 4 times", 4),
    ],
)
@pytest.mark.parametrize("cache", [False, True])
def test_what_a_server_may_answer(
    tmp_path: Path, server, script, says: str, requests: int, cache: bool
) -> None:
    index, _ = remote(tmp_path, server)
    server.scripts = [script]
    with pytest.raises(InputError, match=says):
        read(index, cache_dir=str(tmp_path / "cache") if cache else None)
    assert server.requests == requests


# -- disk full -------------------------------------------------------------------------------


def test_packing_on_a_full_disk_is_one_line_and_goes_on_later(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    images = make_images(tmp_path / "images", 3)
    out = tmp_path / "out"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SystemExit) as stopped:
            main(["shards", str(images), str(out), "--num_workers", "0"])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: {out}.partial: no space left on this disk")
    assert not out.exists()
    main(["shards", str(images), str(out), "--num_workers", "0"])
    assert len(read(ShardIndex.load(out))) == 3
