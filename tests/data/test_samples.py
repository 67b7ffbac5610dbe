"""Which places hold shards, and which hold plain images."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdm_lightning.data.samples import FileSource, ShardSource, open_samples
from sdm_lightning.data.shards.indexing import index_shards
from sdm_lightning.data.shards.reading import ShardReader
from sdm_lightning.errors import InputError
from tests.data.shard_tools import encoded, make_images, photo, write_tar


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    (tmp_path / "tars").mkdir()
    members = {f"{number:03d}.png": encoded(photo(number)) for number in range(3)}
    return write_tar(tmp_path / "tars" / "photos.tar", members)


def test_a_place_is_shards_where_it_has_an_index(tar: Path):
    reader = ShardReader()
    plain = open_samples(str(tar), reader)
    assert isinstance(plain, FileSource)
    index_shards(str(tar.parent), num_workers=0)
    places = [tar, tar.parent, tar.parent / "index.json", tar.parent / "{photos,}.tar"]
    for place in (*map(str, places[:3]), [str(tar)], tar.parent.as_uri()):
        source = open_samples(place, reader)
        assert isinstance(source, ShardSource)
        keys = [sample.key for sample in source.read(0, len(source))]
        assert keys == list(plain.keys.values()) == ["000", "001", "002"]
    with pytest.raises(InputError, match="does not list this shard"):
        open_samples(str(places[3]), reader)


def test_an_archive_beside_images_makes_no_shards(tar: Path):
    folder = make_images(tar.parent / "unpacked", 2)
    (folder / "photos.tar.gz").write_bytes(tar.read_bytes())
    source = open_samples(str(folder), ShardReader())
    assert isinstance(source, FileSource)
    assert len(source) == 2
    (folder / "photos.tar").write_bytes(tar.read_bytes())
    with pytest.raises(InputError, match="unpacked: holds images, and tar files without an index"):
        open_samples(str(folder), ShardReader())


def test_addresses_of_local_folders_are_read_as_paths(tmp_path: Path):
    images = make_images(tmp_path / "my photos", 2)
    for place in (images.as_uri(), images):
        source = open_samples(place, ShardReader())
        assert isinstance(source, FileSource)
        assert len(source) == 2


def test_links_to_folders_are_left_out_with_a_warning(tmp_path: Path, caplog):
    images = make_images(tmp_path / "in", 1)
    (images / "0.gif").write_bytes(b"x")
    for name in "abcd":
        (images / name).symlink_to(make_images(tmp_path / "elsewhere", 1), target_is_directory=True)
    assert len(open_samples(str(images), ShardReader())) == 1
    says = "left out 1 file of other formats (.gif) and 4 links to folders (a, b, c, ...)"
    assert f"{images}: {says}" in caplog.text
    for name in ("000.png", "0.gif", "b", "c", "d"):
        (images / name).unlink()
    with pytest.raises(InputError, match=r"no images in it; .*; found 1 link to a folder \(a\)$"):
        open_samples(str(images), ShardReader())


def test_what_is_missing(tar: Path):
    for place in (tar.parent, tar.parent / "{000..001}.tar"):
        with pytest.raises(InputError, match=r"no such index; .*`sdm index SHARDS`"):
            open_samples(str(place), ShardReader())
    with pytest.raises(InputError, match="does not exist; give a folder"):
        open_samples(str(tar.parent / "none"), ShardReader())
