"""Packing keeps the bytes, loses nothing in silence, and never leaves half an output."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sdm_lightning.data.decode import decode_mask
from sdm_lightning.data.shards import building, packing
from sdm_lightning.data.shards.index import ShardIndex
from sdm_lightning.data.shards.indexing import index_shards
from sdm_lightning.data.shards.packing import pack_shards
from sdm_lightning.data.shards.reading import ShardReader, scan_shard
from sdm_lightning.errors import InputError
from tests.data.shard_tools import encoded, make_images, photo, write_tar


def read_all(folder: Path) -> dict[str, bytes]:
    reader = ShardReader(verify_checksums=True)
    samples = [s for shard in ShardIndex.load(folder).shards for s in reader.read(shard)]
    assert len({s.key for s in samples}) == len(samples)
    return {sample.key: sample.image for sample in samples}


def checksums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_index_agrees_with_the_files(tmp_path: Path):
    make_images(tmp_path / "in", 7)
    pack_shards(str(tmp_path / "in"), str(tmp_path / "out"), max_samples=3, num_workers=0)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["samples"] == 7
    assert [s["samples"] for s in index["shards"]] == [3, 3, 1]
    for shard in index["shards"]:
        data = (tmp_path / "out" / shard["name"]).read_bytes()
        assert len(data) == shard["bytes"]
        assert hashlib.sha256(data).hexdigest() == shard["sha256"]
        with tarfile.open(tmp_path / "out" / shard["name"]) as tar:
            assert {member.mtime for member in tar} == {0}
    assert not (tmp_path / "out.partial").exists()
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert files == {"index.json", *(s["name"] for s in index["shards"])}


def test_encoded_bytes_are_kept_from_folder_zip_and_tar(tmp_path: Path):
    images = {f"{'ab'[i % 2]}/{i}.jpg": encoded(photo(i), "JPEG") for i in range(5)}
    for name, data in images.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    (tmp_path / "in" / "a" / "._0.jpg").write_bytes(b"left by an operating system")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name, data in images.items():
            archive.writestr(name, data)
    write_tar(tmp_path / "in.tar", images)
    expected = {name[:-4].replace("/", "__"): data for name, data in images.items()}
    sums = []
    for number, source in enumerate(["in", "in.zip", "in.tar"]):
        out = tmp_path / f"out{number}"
        pack_shards(str(tmp_path / source), str(out), max_samples=2, num_workers=0)
        assert read_all(out) == expected, source
        sums.append({k: v for k, v in checksums(out).items() if k != "index.json"})
    assert sums[0] == sums[1] == sums[2]


def test_same_input_same_bytes_with_any_number_of_processes(tmp_path: Path):
    make_images(tmp_path / "in", 9)
    for number, workers in enumerate([0, 2]):
        out = tmp_path / f"out{number}"
        pack_shards(str(tmp_path / "in"), str(out), max_samples=2, num_workers=workers)
    assert checksums(tmp_path / "out0") == checksums(tmp_path / "out1")


def test_shuffle_and_order(tmp_path: Path):
    make_images(tmp_path / "in", 20)
    source, orders = str(tmp_path / "in"), []
    for number, options in enumerate([{"shuffle": False}, {}, {"seed": 1}]):
        pack_shards(source, str(tmp_path / f"out{number}"), num_workers=0, **options)
        orders.append(list(read_all(tmp_path / f"out{number}")))
    assert orders[0] == sorted(orders[0])
    assert orders[1] != orders[0] != orders[2] != orders[1]
    assert sorted(orders[1]) == sorted(orders[2]) == orders[0]


def test_shard_names_differ_between_data_sets_and_make_a_brace_range(tmp_path: Path):
    names = []
    for number in range(2):
        make_images(tmp_path / f"in{number}", 4 + number)
        out = tmp_path / f"out{number}"
        pack_shards(str(tmp_path / f"in{number}"), str(out), max_samples=1, num_workers=0)
        names.append({p.name for p in out.glob("*.tar")})
    assert not names[0] & names[1]
    first = min(names[0])
    spec = str(tmp_path / "out0" / first.replace("000000", "{000000..000003}"))
    assert ShardIndex.load(spec) == ShardIndex.load(tmp_path / "out0")


def test_what_cannot_be_decoded_is_left_out_and_listed(tmp_path: Path, capsys):
    images = make_images(tmp_path / "in", 4)
    (images / "bad.jpg").write_bytes(encoded(photo(0, 64, 64), "JPEG")[:900])
    (images / "empty.png").write_bytes(b"")
    pack_shards(str(images), str(tmp_path / "out"), num_workers=0)
    assert sorted(read_all(tmp_path / "out")) == ["000", "001", "002", "003"]
    lines = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["bad.jpg", "empty.png"]
    printed = capsys.readouterr().out
    assert "skipped bad.jpg: cannot be decoded" in printed
    assert "skipped 2 of 6 images" in printed
    assert "4 images in 1 shard," in printed


def test_files_of_other_formats_are_counted_in_a_folder_zip_and_tar(tmp_path: Path, capsys):
    images = make_images(tmp_path / "in", 1)
    for name in ("a/b.heic", "a/c.HEIC", "d.avif", ".hidden", "__MACOSX/._a"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes(b"x")
    shutil.make_archive(str(images), "zip", images)
    shutil.make_archive(str(images), "tar", images)
    for suffix in ("", ".zip", ".tar"):
        pack_shards(f"{images}{suffix}", str(tmp_path / f"out{suffix}"), num_workers=0)
        printed = capsys.readouterr().out
        assert f"in{suffix}: left out 3 files of other formats (.avif, .heic)" in printed
    (images / "000.png").unlink()
    with pytest.raises(InputError, match=r"no images in it; .*; found 3 files of other formats"):
        pack_shards(str(images), str(tmp_path / "new"), num_workers=0)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch):
    images = make_images(tmp_path / "in", 1)
    make_images(images / "closed", 1)
    scandir = os.scandir

    def refusing(path: str):
        if str(path).endswith(("closed", "lost+found", ".Trashes")):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for name in ("lost+found", ".Trashes"):  # nobody's photos
        (images / name).mkdir()
    with pytest.raises(InputError, match=r"closed: cannot be listed \(Permission denied\)"):
        pack_shards(str(images), str(tmp_path / "out"), num_workers=0)
    (images / "closed").rename(tmp_path / "elsewhere")
    pack_shards(str(images), str(tmp_path / "out"), num_workers=0)


def test_the_extension_is_that_of_the_content(tmp_path: Path):
    images = tmp_path / "in"
    images.mkdir()
    (images / "a.jpg").write_bytes(encoded(photo(0), "PNG"))
    pack_shards(str(images), str(tmp_path / "out"), num_workers=0)
    with tarfile.open(next((tmp_path / "out").glob("*.tar"))) as tar:
        assert tar.getnames() == ["a.png"]


def test_masks_are_paired_by_name_and_stored_white_known(tmp_path: Path):
    make_images(tmp_path / "in" / "x", 3)
    known = {f"{i:03d}": (photo(50 + i)[..., 0] > 99).astype(np.uint8) for i in range(3)}
    for invert in (False, True):
        masks = tmp_path / f"masks{invert}"
        masks.mkdir()
        for name, mask in known.items():
            (masks / f"{name}.png").write_bytes(encoded((1 - mask if invert else mask) * 255))
        out = tmp_path / f"out{invert}"
        pack_shards(
            str(tmp_path / "in"),
            str(out),
            masks=str(masks),
            mask_convention="hole-white" if invert else "known-white",
            num_workers=0,
        )
        index = ShardIndex.load(out)
        assert index.has_masks
        for sample in ShardReader().read(index.shards[0]):
            assert sample.mask is not None
            assert np.array_equal(decode_mask(sample.mask), known[sample.key[-3:]])
    (masks / "001.png").unlink()
    with pytest.raises(InputError, match=r"no mask for x/001.png"):
        pack_shards(str(tmp_path / "in"), str(tmp_path / "o"), masks=str(masks), num_workers=0)
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "o.partial").exists()


def test_an_interrupted_packing_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch):
    make_images(tmp_path / "in", 8)
    source, out = str(tmp_path / "in"), tmp_path / "out"
    pack_shards(source, str(tmp_path / "whole"), max_samples=2, num_workers=0)
    real, calls = building.probe_image, []

    def interrupted(data: bytes) -> tuple[str, tuple[int, int]]:
        calls.append(data)
        if len(calls) == 6:  # in the middle of the third shard
            raise KeyboardInterrupt
        return real(data)

    monkeypatch.setattr(building, "probe_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack_shards(source, str(out), max_samples=2, num_workers=0)
    assert not out.exists()
    with pytest.raises(InputError, match=r"unfinished packing .* with other settings"):
        pack_shards(source, str(out), max_samples=3, num_workers=0)
    # A finished shard that was damaged meanwhile is built again.
    tar = tmp_path / "out.partial" / "000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(building, "probe_image", real)
    kept = (tmp_path / "out.partial" / "000001.tar").stat().st_ino
    pack_shards(source, str(out), max_samples=2, num_workers=0)
    assert checksums(out) == checksums(tmp_path / "whole")
    assert kept in {p.stat().st_ino for p in out.glob("*-000001.tar")}
    assert not (tmp_path / "out.partial").exists()


def test_interrupted_while_naming_goes_on(tmp_path: Path, monkeypatch):
    make_images(tmp_path / "in", 4)
    source, out = str(tmp_path / "in"), tmp_path / "out"
    pack_shards(source, str(tmp_path / "whole"), max_samples=1, num_workers=0)

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_index", fail)
        with pytest.raises(KeyboardInterrupt):
            pack_shards(source, str(out), max_samples=1, num_workers=0)
    assert not out.exists()
    pack_shards(source, str(out), max_samples=1, num_workers=0)
    assert checksums(out) == checksums(tmp_path / "whole")


def test_outputs_that_exist(tmp_path: Path, capsys):
    images = make_images(tmp_path / "in", 3)
    out = tmp_path / "out"
    pack_shards(str(images), str(out), num_workers=0)
    before = checksums(out)
    pack_shards(str(images), str(out), num_workers=0)
    assert "nothing to do" in capsys.readouterr().out
    assert checksums(out) == before
    with pytest.raises(InputError, match="set --overwrite true"):
        pack_shards(str(images), str(out), seed=5, num_workers=0)
    assert checksums(out) == before
    pack_shards(str(images), str(out), seed=5, num_workers=0, overwrite=True)
    assert set(read_all(out)) == {"000", "001", "002"}
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        pack_shards(str(images), str(out), seed=5, num_workers=0, overwrite=True)
    assert (out / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "out.partial").exists()


def test_an_image_changed_since_is_not_taken_for_packed(tmp_path: Path):
    images = make_images(tmp_path / "in", 3)
    pack_shards(str(images), str(tmp_path / "out"), num_workers=0)
    (images / "000.png").write_bytes(encoded(photo(0)))  # the same size, a later time
    later = (tmp_path / "out" / "index.json").stat().st_mtime + 10
    os.utime(images / "000.png", (later, later))
    with pytest.raises(InputError, match="set --overwrite true"):
        pack_shards(str(images), str(tmp_path / "out"), num_workers=0)


@pytest.mark.parametrize("content", ["nothing", "text", "missing", "broken zip", "all bad"])
def test_sources_that_are_none(tmp_path: Path, content: str):
    source = tmp_path / "in"
    if content == "broken zip":
        source = tmp_path / "in.zip"
        source.write_bytes(b"PK\x03\x04 and no more")
    elif content != "missing":
        source.mkdir()
    if content == "text":
        (source / "a.txt").write_text("a")
    if content == "all bad":
        (source / "a.jpg").write_bytes(b"a")
    with pytest.raises(InputError, match="in"):
        pack_shards(str(source), str(tmp_path / "out"), num_workers=0)
    left = {p.name for p in tmp_path.iterdir()} - {source.name}
    assert left == set()


def test_shards_packed_elsewhere_get_an_index(tmp_path: Path):
    for number in range(2):
        members = {f"d/{number}{i}.jpg": encoded(photo(i), "JPEG") for i in range(3)}
        members |= {f"d/{number}{i}.cls": b"7" for i in range(3)}
        write_tar(tmp_path / f"{number}.tar", dict(sorted(members.items())))
    with pytest.raises(InputError, match="sdm index"):
        ShardIndex.load(tmp_path)
    index_shards(str(tmp_path), num_workers=0)
    index = ShardIndex.load(tmp_path)
    assert [shard.samples for shard in index.shards] == [3, 3]
    assert sorted(read_all(tmp_path)) == [f"d/{n}{i}" for n in range(2) for i in range(3)]
    with pytest.raises(InputError, match="exists"):
        index_shards(str(tmp_path), num_workers=0)


def test_index_refuses_repeated_keys_and_names_what_is_not_read(tmp_path: Path, capsys) -> None:
    image = encoded(photo(0))
    write_tar(tmp_path / "0.tar", {"a.png": image, "b.v2.png": image, "c.image.png": image})
    index_shards(str(tmp_path), num_workers=0)
    printed = capsys.readouterr().out
    assert "2 images are not read, such as b.v2.png" in printed
    assert printed.endswith("1 samples in 1 shard\n")
    write_tar(tmp_path / "1.tar", {"a.png": image})
    for hidden in ("._0.tar", "._1.tar.gz"):  # macOS's
        (tmp_path / hidden).write_bytes(b"attributes")
    with pytest.raises(InputError, match="two samples have the key a;"):
        index_shards(str(tmp_path), num_workers=0, overwrite=True)
    assert ShardIndex.load(tmp_path).num_samples == 1, "the earlier index is kept"
    write_tar(tmp_path / "1.tar", {"a.img.png": image})
    with pytest.raises(InputError, match=r"1.tar: no sample .*; 1 images .* no other dot in KEY"):
        index_shards(str(tmp_path), num_workers=0, overwrite=True)


def test_indexing_keeps_no_images_in_memory(tmp_path: Path):
    images = {f"{number}.png": encoded(photo(number, 200, 200)) for number in range(20)}
    path = str(write_tar(tmp_path / "0.tar", images))
    tracemalloc.start()
    keys, *_ = scan_shard(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert keys == [(str(number), False) for number in range(20)]
    assert peak < 10 * len(images["0.png"])


def test_masks_that_are_nearly_all_hole_are_pointed_out(tmp_path: Path, capsys):
    make_images(tmp_path / "in", 2)
    (tmp_path / "masks").mkdir()
    for number in range(2):
        mask = np.zeros((12, 14), np.uint8)
        mask[:2, :2] = 255
        (tmp_path / "masks" / f"{number:03d}.png").write_bytes(encoded(mask))
    source, masks = str(tmp_path / "in"), str(tmp_path / "masks")
    pack_shards(source, str(tmp_path / "a"), masks=masks, num_workers=0)
    printed = capsys.readouterr().out
    assert "2 of 2 masks are nearly all hole" in printed
    assert "--mask_convention hole-white" in printed
    pack_shards(
        source, str(tmp_path / "b"), masks=masks, mask_convention="hole-white", num_workers=0
    )
    assert "nearly all hole" not in capsys.readouterr().out


def test_masks_of_another_size_are_pointed_out(tmp_path: Path, capsys):
    make_images(tmp_path / "in", 2)
    (tmp_path / "masks").mkdir()
    for number in range(2):
        mask = np.full((12, 14 + number), 255, np.uint8)
        (tmp_path / "masks" / f"{number:03d}.png").write_bytes(encoded(mask))
    source, masks = str(tmp_path / "in"), str(tmp_path / "masks")
    pack_shards(source, str(tmp_path / "out"), masks=masks, num_workers=0)
    assert "1 of 2 masks are of another size than their image" in capsys.readouterr().out


def test_two_processes_do_not_pack_into_one_output(tmp_path: Path, monkeypatch):
    make_images(tmp_path / "in", 2)
    monkeypatch.setattr(packing, "_LOCK_ATTEMPTS", 1)
    with packing._locked(tmp_path / "out.partial"):
        with pytest.raises(InputError, match="another process is packing here"):
            pack_shards(str(tmp_path / "in"), str(tmp_path / "out"), num_workers=0)
        assert {path.name for path in tmp_path.iterdir()} == {"in", "out.partial.lock"}
    pack_shards(str(tmp_path / "in"), str(tmp_path / "out"), num_workers=0)
    assert set(read_all(tmp_path / "out")) == {"000", "001"}
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch):
    """The process before us ends between our opening of its lock and our locking of it."""
    path, held = tmp_path / "out.lock", []

    def lock(descriptor: int) -> None:
        if not held:
            path.unlink()
        held.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(packing, "lock", lock)
    monkeypatch.setattr(packing.time, "sleep", lambda _: None)
    with packing._locked(tmp_path / "out"):
        assert len(held) == 2
        assert path.stat().st_ino == held[-1]


def test_on_windows_the_lock_is_closed_before_it_is_removed(tmp_path: Path, monkeypatch):
    def unlink(path: Path, real=Path.unlink) -> None:
        assert not open_files(tmp_path)
        real(path)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(sys, "platform", "win32")
    with packing._locked(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())


def open_files(folder: Path) -> list[str]:
    """The files in a folder that this process has open."""
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return [link for link in links if link.startswith(f"{folder.resolve()}/")]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="not on this system")
def test_no_file_is_open_in_a_folder_that_is_renamed(tmp_path: Path, monkeypatch):
    """Windows refuses that."""
    make_images(tmp_path / "in", 2)

    def replace(source, target, real=os.replace) -> None:
        assert not open_files(Path(source))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    for seed in (0, 1):
        pack_shards(
            str(tmp_path / "in"), str(tmp_path / "out"), num_workers=0, seed=seed, overwrite=True
        )
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.slow
def test_a_killed_packing_goes_on(tmp_path: Path):
    """Kill the process that packs; its workers must let go of the output by themselves."""
    make_images(tmp_path / "in", 300, height=200, width=200)
    code = (
        "from sdm_lightning.data.shards.packing import pack_shards\n"
        f"pack_shards({str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r}, "
        "max_samples=5, num_workers=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "out.partial").glob("*.tar"))) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists()
    pack_shards(str(tmp_path / "in"), str(tmp_path / "out"), max_samples=5, num_workers=0)
    pack_shards(str(tmp_path / "in"), str(tmp_path / "whole"), max_samples=5, num_workers=0)
    assert checksums(tmp_path / "out") == checksums(tmp_path / "whole")
