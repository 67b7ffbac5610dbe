"""A shard is what its index says, or one line says what is wrong with it. Nothing runs."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from sdm_lightning.data.shards.index import ShardIndex
from sdm_lightning.data.shards.indexing import index_shards
from sdm_lightning.data.shards.packing import pack_shards
from sdm_lightning.data.shards.reading import RawSample, ShardReader
from sdm_lightning.errors import InputError
from tests.data.shard_tools import encoded, make_images, make_shards, photo, write_tar


def read(index: ShardIndex, **options: object) -> list[RawSample]:
    reader = ShardReader(**options)
    return [sample for shard in index.shards for sample in reader.read(shard)]


class Touch:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


# -- naming shards ---------------------------------------------------------------------------


def test_folder_index_braces_and_lists_name_the_same_shards(tmp_path: Path):
    index = make_shards(tmp_path, 6, 2)
    folder = tmp_path / "shards"
    paths = sorted(str(path) for path in folder.glob("*.tar"))
    brace = paths[0].replace("000000", "{000000..000002}")
    for spec in (folder, str(folder), str(folder / "index.json"), brace, paths):
        assert ShardIndex.load(spec) == index
    assert index.num_samples == 6
    assert len(ShardIndex.load(paths[1]).shards) == 1
    assert ShardIndex.load(f"file://{folder}").digest == index.digest
    with pytest.raises(InputError, match="named twice"):
        ShardIndex.load([paths[0], paths[0]])
    with pytest.raises(InputError, match="does not list this shard"):
        ShardIndex.load(brace.replace("000002", "000003"))


@pytest.mark.parametrize(
    "url",
    ["pipe:touch {}", "PIPE:touch {}", "simplecache::file://{}", "ftp://host/{}", "data:,{}"],
)
def test_other_schemes_are_refused_and_run_nothing(tmp_path: Path, url: str, monkeypatch):
    marker = tmp_path / "touched"
    with pytest.raises(InputError, match="refused"):
        ShardIndex.load(url.format(marker))
    index = make_shards(tmp_path, 2, 1)
    content = json.loads((tmp_path / "shards" / "index.json").read_text())
    content["shards"][0]["name"] = url.format(marker)
    (tmp_path / "shards" / "index.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not a plain file name"):
        ShardIndex.load(tmp_path / "shards")
    # WebDataset's own opener would turn the path of this shard into a command.
    monkeypatch.setenv("GOPEN_REWRITE", f"{tmp_path}=pipe:touch {marker};")
    assert len(read(index)) == 2
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../x.tar", "/etc/passwd", "a/b.tar", "..", "c:x.tar", 3])
def test_index_names_lead_nowhere_else(tmp_path: Path, name: object):
    make_shards(tmp_path, 1, 1)
    path = tmp_path / "shards" / "index.json"
    content = json.loads(path.read_text())
    content["shards"][0]["name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="not a plain file name"):
        ShardIndex.load(tmp_path / "shards")


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("pipe:cat", "refused"),
        ("https://[", "not an address"),
        ("/etc", "base '/etc' is no address"),
        ("file:///etc", "is no address"),
        ("..", "is no address"),
        (3, "damaged index"),
    ],
)
def test_the_base_of_an_index_is_an_address(tmp_path: Path, base: object, says: str):
    make_shards(tmp_path, 1, 1)
    path = tmp_path / "shards" / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base": base}))
    with pytest.raises(InputError, match=says):
        ShardIndex.load(tmp_path / "shards")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable index"),
        ("[]", "not an index"),
        ('{"format": "other"}', "not an index"),
        ('{"format": "sdm_lightning.shards", "version": 9}', "index version 9"),
        ('{"format": "sdm_lightning.shards", "version": 1}', "damaged index"),
        ('{"format": "sdm_lightning.shards", "version": 1, "shards": []}', "no samples"),
    ],
)
def test_indexes_that_are_none(tmp_path: Path, content: str, message: str):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(InputError, match=message):
        ShardIndex.load(tmp_path)


# -- faults in shards ------------------------------------------------------------------------


def test_missing_and_truncated_shards_show_before_anything_is_read(tmp_path: Path):
    index = make_shards(tmp_path, 6, 2)
    victim = Path(index.shards[1].url)
    data = victim.read_bytes()
    victim.write_bytes(data[:-512])
    with pytest.raises(InputError, match=rf"{victim.name}: shard has {len(data) - 512} bytes, its"):
        ShardIndex.load(tmp_path / "shards")
    victim.unlink()
    with pytest.raises(InputError, match=rf"{victim.name}: shard is missing"):
        ShardIndex.load(tmp_path / "shards")
    with pytest.raises(InputError, match=rf"{victim.name}: shard is missing"):
        read(index)


def test_no_cut_of_a_fetched_shard_goes_unnoticed(tmp_path: Path, monkeypatch):
    """The size of a remote file is not known beforehand, so every cut must show in reading."""
    index = make_shards(tmp_path, 3, 3)
    (shard,) = index.shards
    data = Path(shard.url).read_bytes()
    cut = tmp_path / "cut.tar"
    cuts = [*range(0, len(data), 256), len(data) - 1]
    for size in cuts:
        cut.write_bytes(data[:size])
        with pytest.raises(InputError, match="its index says"):
            ShardReader()._read(shard, str(cut))
    cut.write_bytes(data)
    assert len(ShardReader()._read(shard, str(cut))) == 3


def test_wrong_count_and_wrong_content(tmp_path: Path):
    index = make_shards(tmp_path, 3, 3)
    path = Path(index.shards[0].url)
    content = json.loads((tmp_path / "shards" / "index.json").read_text())
    content["shards"][0]["samples"] = 4
    (tmp_path / "shards" / "index.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"3 samples, its index says 4"):
        read(ShardIndex.load(tmp_path / "shards"))
    data = bytearray(path.read_bytes())
    data[600] ^= 1  # one bit of the first image
    path.write_bytes(bytes(data))
    assert len(read(index)) == 3
    with pytest.raises(InputError, match="sha256"):
        read(index, verify_checksums=True)


@pytest.mark.parametrize("content", [b"<html>not found</html>" * 100, b"\0" * 10240])
def test_other_content_of_the_right_size(tmp_path: Path, content: bytes):
    index = make_shards(tmp_path, 3, 3)
    path = Path(index.shards[0].url)
    path.write_bytes((content * 10)[: index.shards[0].bytes].ljust(index.shards[0].bytes, b"\0"))
    with pytest.raises(InputError, match=path.name):
        read(index)


def test_two_images_or_none_in_a_sample(tmp_path: Path):
    image = encoded(photo(0))
    write_tar(tmp_path / "a.tar", {"x.png": image, "x.webp": image})
    with pytest.raises(InputError, match="sample x must have one image, it has png, webp"):
        index_shards(str(tmp_path), num_workers=0)
    write_tar(tmp_path / "a.tar", {"x.mask.png": image})
    with pytest.raises(InputError, match="sample x must have one image, it has none"):
        index_shards(str(tmp_path), num_workers=0)
    write_tar(tmp_path / "a.tar", {"x.png": image, "y.txt": b"", "x.PNG": image})
    with pytest.raises(InputError, match=r"duplicate file name"):
        index_shards(str(tmp_path), num_workers=0)


@pytest.mark.parametrize("name", ["pkl", "pickle", "pyd", "pth", "pt", "json", "cls", "npy", "gz"])
def test_pickled_members_run_nothing(tmp_path: Path, name: str):
    marker = tmp_path / "ran"
    evil = pickle.dumps(Touch(marker))
    folder = tmp_path / "shards"
    folder.mkdir()
    members = {f"a.{name}": evil, "a.png": encoded(photo(0)), f"b.{name}": evil}
    write_tar(folder / "x.tar", members | {"b.png": encoded(photo(1)), f"c.{name}": evil})
    index_shards(str(folder), num_workers=0)
    samples = read(ShardIndex.load(folder))
    assert [sample.key for sample in samples] == ["a", "b"]
    assert samples[0].image == encoded(photo(0))
    assert not marker.exists()
    pickle.loads(evil)  # it would have
    assert marker.exists()


# -- shards from elsewhere -------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve ``tmp_path`` on the loopback; also give the list of requested paths."""
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", requests
        httpd.shutdown()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_http_shards(tmp_path: Path, server):
    url, _ = server
    local = make_shards(tmp_path, 5, 2)
    for spec in (f"{url}/shards", f"{url}/shards/", f"{url}/shards/index.json"):
        index = ShardIndex.load(spec)
        assert index.digest == local.digest
    with pytest.raises(InputError, match="no such index"):
        ShardIndex.load(f"{url}/elsewhere")
    assert [s.image for s in read(index)] == [s.image for s in read(local)]
    name = Path(local.shards[0].url).name.replace("000000", "{000000..000002}")
    assert (
        ShardIndex.load(f"{url}/shards/{name}?token=a%2Fb").shards[2].url.endswith("?token=a%2Fb")
    )


def test_cache_reads_once_and_never_mixes_up_base_names(tmp_path: Path, server):
    url, requests = server
    sets = []
    for number in range(2):
        folder = tmp_path / f"set{number}"
        folder.mkdir()
        write_tar(folder / "0.tar", {f"k{number}.png": encoded(photo(number))})
        index_shards(str(folder), num_workers=0)
        sets.append(ShardIndex.load(f"{url}/set{number}"))
    cache = tmp_path / "cache"
    for _ in range(2):
        for number, index in enumerate(sets):
            (sample,) = read(index, cache_dir=str(cache))
            assert sample.key == f"k{number}"
    assert sum(path.endswith(".tar") for path in requests) == 2
    assert len(list(cache.iterdir())) == 2
    # A damaged file in the cache is fetched again; a damaged transfer stays out of it.
    for file in cache.iterdir():
        file.write_bytes(b"half")
    assert read(sets[0], cache_dir=str(cache))[0].key == "k0"
    (tmp_path / "set1" / "0.tar").write_bytes(b"other")
    with pytest.raises(InputError, match="do not match the index"):
        read(sets[1], cache_dir=str(cache))
    assert not list(cache.glob("*.part"))


class Store(MemoryFileSystem):
    """A store in memory; what it raises instead of opening or reading lies in ``faults``."""

    protocol = "s3"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    faults: ClassVar[dict[str, list[Exception]]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol("/" + path.removeprefix("s3://").lstrip("/"))

    def _open(self, *args: object, **options: object) -> io.BytesIO:
        raise_next(self.faults["open"])
        found = io.BytesIO(super()._open(*args, **options).read())
        found.read = lambda size, read=found.read: raise_next(self.faults["read"]) or read(size)
        return found


def raise_next(faults: list[Exception]) -> None:
    if faults:
        raise faults.pop(0)


@pytest.fixture
def store(tmp_path: Path, monkeypatch) -> type[Store]:
    """Put four samples in two shards into ``s3://bucket/set``; they also lie in ``tmp_path``."""
    make_shards(tmp_path, 4, 2)
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Store)
    monkeypatch.setattr(Store, "store", {})
    monkeypatch.setattr(Store, "faults", {"open": [], "read": []})
    for path in (tmp_path / "shards").iterdir():
        fsspec.filesystem("s3").pipe(f"s3://bucket/set/{path.name}", path.read_bytes())
    return Store


def test_object_stores_go_through_fsspec(tmp_path: Path, store, monkeypatch):
    local = ShardIndex.load(tmp_path / "shards")
    index = ShardIndex.load("s3://bucket/set")
    assert index.shards[0].url.startswith("s3://bucket/set/shard-")
    assert [s.image for s in read(index)] == [s.image for s in read(local)]
    cached = read(index, cache_dir=str(tmp_path / "cache"))
    assert [s.image for s in cached] == [s.image for s in read(local)]
    with pytest.raises(InputError, match="no such index"):
        ShardIndex.load("s3://bucket/other")

    def missing(*args: object, **kwargs: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "open", missing)
    with pytest.raises(InputError, match="needs a package that is not installed"):
        ShardIndex.load("s3://bucket/set")


def test_shards_in_a_store_get_an_index_elsewhere(tmp_path: Path, store, monkeypatch):
    local = ShardIndex.load(tmp_path / "shards")
    names = [Path(shard.url).name for shard in local.shards]
    spec = f"s3://bucket/set/{names[0].replace('000000', '{000000..000001}')}"
    output = str(tmp_path / "there")
    index_shards(spec, output=output, num_workers=0)
    index = ShardIndex.load(output)
    assert index.digest == local.digest
    assert [shard.url for shard in index.shards] == [f"s3://bucket/set/{name}" for name in names]
    assert [s.image for s in read(index)] == [s.image for s in read(local)]
    assert ShardIndex.load(f"{output}/{names[1]}").shards == index.shards[1:]
    monkeypatch.chdir(tmp_path / "shards")  # an address is not this folder
    neither = "neither a local folder of tar files nor, with --out"
    for place, into, says in (
        (spec, None, neither),
        ("s3://bucket/set", None, neither),
        ("s3://bucket/set", output, neither),
        ("s3://bucket/{set,other}/a.tar", output, "shards of several folders"),
        (str(tmp_path / "shards"), output, "leave out --output"),
        (str(tmp_path / "none"), None, neither),
    ):
        with pytest.raises(InputError, match=says):
            index_shards(place, output=into, num_workers=0, overwrite=True)


@pytest.mark.parametrize("step", ["open", "read"])
@pytest.mark.parametrize("cache", [None, "cache"])
def test_any_fault_of_a_store_is_a_broken_connection(tmp_path: Path, store, step: str, cache):
    class ClientPayloadError(Exception):
        """As of aiohttp: none of Python's own."""

    options = {"cache_dir": cache and str(tmp_path / cache)}
    index = ShardIndex.load("s3://bucket/set")
    store.faults[step] = [ClientPayloadError("cut")] * 2
    assert len(read(index, **options)) == 4
    assert not store.faults[step]
    says = r"s3://bucket/set/shard-.*\(ClientPayloadError: cut\)"
    other = {"cache_dir": cache and str(tmp_path / "other")}
    store.faults[step] = [ClientPayloadError("cut")] * 3
    with pytest.raises(InputError, match=says):
        read(index, **other)
    assert not store.faults[step]
    store.faults[step] = [ClientPayloadError("cut")]
    with pytest.raises(InputError, match=r"index cannot be read \(ClientPayloadError: cut\)"):
        ShardIndex.load("s3://bucket/set")


def test_what_a_store_refuses_is_asked_for_once(store):
    index = ShardIndex.load("s3://bucket/set")
    store.faults["open"] = [PermissionError("Forbidden")] * 2
    with pytest.raises(InputError, match=r"cannot be read \(Forbidden\); .* that you may read it$"):
        read(index)
    assert len(store.faults["open"]) == 1


def test_full_disk_is_one_line(tmp_path: Path, server, monkeypatch):
    url, _ = server
    make_shards(tmp_path, 2, 2)
    index = ShardIndex.load(f"{url}/shards")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space left"):
        read(index, cache_dir=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").iterdir()) == []
    make_images(tmp_path / "more", 2)
    with pytest.raises(InputError, match="no space left"):
        pack_shards(str(tmp_path / "more"), str(tmp_path / "out"), num_workers=0)
