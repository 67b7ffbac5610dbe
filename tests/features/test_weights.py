import pickle
from urllib.error import URLError

import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.features.weights import (
    PublishedWeights,
    find_published,
    load_state,
    sha256_of_state,
)
from sdm_lightning.files import sha256_of_file


def published(sha256="0" * 8):
    return PublishedWeights(
        "https://example.org/net-00000000.pth", sha256, "net_weights", "net=toy"
    )


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net-00000000.pth"
    torch.save({"w": torch.arange(3.0)}, path)
    return path


def test_missing_weights_say_where_and_what_else(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        find_published(published())
    text = str(error.value)
    assert str(tmp_path / "hub" / "checkpoints" / "net-00000000.pth") in text
    assert "--download true to sdm evaluate" in text
    assert "net_weights" in text
    assert "net=toy" in text
    with pytest.raises(InputError, match=r"nowhere\.pth: no such file, given by net_weights"):
        find_published(published(), tmp_path / "nowhere.pth")


@pytest.mark.parametrize("fault", [URLError("no route to host"), RuntimeError("invalid hash")])
def test_a_failed_download_is_one_line(fault, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fail(*_, **__):
        raise fault

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(InputError, match=r"cannot be downloaded \(.*(no route|invalid hash)"):
        find_published(published(), download=True)


def test_torch_hubs_cache_is_found(file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    place = tmp_path / "home" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    file.rename(place / file.name)
    digest = sha256_of_file(place / file.name)
    assert find_published(published(digest[:8])) == (place / file.name, digest)


def test_another_file_needs_its_hash_stated(file):
    digest = sha256_of_file(file)
    with pytest.raises(InputError, match=f"starts with {digest[:8]}, expected 00000000"):
        find_published(published(), file)
    assert find_published(published(), file, digest[:12]) == (file, digest)
    with pytest.raises(InputError, match="at least 8"):
        find_published(published(), file, digest[:4])


def test_nothing_in_an_unknown_file_is_executed(tmp_path, capsys):
    path = tmp_path / "bad.pth"
    torch.save({"w": Payload()}, path)
    with pytest.raises(InputError, match=r"holds more than tensors; expected .* of net-"):
        load_state(path, published(sha256_of_file(path)[:8]))
    (tmp_path / "raw.pth").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError):
        load_state(tmp_path / "raw.pth", published())
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(InputError, match="not a plain dictionary"):
        load_state(tmp_path / "list.pth", published())
    assert "executed" not in capsys.readouterr().out


def test_state_hash_sees_names_and_values():
    a = {"x": torch.ones(2), "y": torch.zeros(2)}
    assert sha256_of_state(a) == sha256_of_state(dict(reversed(a.items())))
    assert sha256_of_state(a) != sha256_of_state({"x": a["y"], "y": a["x"]})
