import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.utils
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, constants

from sdm_lightning.cli.main import main
from sdm_lightning.errors import InputError
from sdm_lightning.inference import Inpainter
from sdm_lightning.inference.hub import split_revision
from sdm_lightning.inference.locating import find_weights
from tests.inference.fake_hub import FakeHub

RECORD = {
    "protocol": "mine-100",
    "num_images": 100,
    "metrics": {"psnr_hole/mine-100": 15.837, "kid[efficientnet-lite2]/mine-100": 1.25,
                "psnr/mine-100": "inf"},
    "checkpoint": {"path": "runs/mine/checkpoints/last.ckpt", "sha256": "a" * 64},
    "parameters": "ema",
}  # fmt: skip


def exported(weights: Path) -> Inpainter:
    """As weights are that `sdm export` made of the checkpoint of `RECORD`."""
    inpainter = Inpainter.from_pretrained(weights)
    assert inpainter.info is not None
    inpainter.info = replace(inpainter.info, extra={"checkpoint_sha256": "a" * 64})
    return inpainter


def same(one: Inpainter, other: Inpainter) -> bool:
    states = one.generator.state_dict(), other.generator.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("user/repo", ("user/repo", None)),
        ("user/re-po.v2@v1.0", ("user/re-po.v2", "v1.0")),
        ("user/repo@refs/pr/1", ("user/repo", "refs/pr/1")),
        ("demo", None),
        ("a/b/c", None),
        ("user/repo@", None),
    ],
)
def test_names_of_repositories(name: str, expected: Any) -> None:
    assert split_revision(name) == expected


def test_a_folder_of_the_hubs_layout(tiny_weights: Path, tmp_path: Path) -> None:
    inpainter = exported(tiny_weights)
    (tmp_path / "results.jsonl").write_text(json.dumps(RECORD) + "\n")
    assert "licence" in inspect.signature(Inpainter.save_pretrained).parameters
    folder = inpainter.save_pretrained(
        tmp_path / "repo", licence="CC-BY-4.0", results=tmp_path / "results.jsonl"
    )
    names = {"model.safetensors", "config.json", "README.md", "example.png"}
    assert names <= {path.name for path in folder.iterdir()}
    loaded = Inpainter.from_pretrained(folder)
    assert same(loaded, inpainter)
    assert loaded.info is not None
    assert (loaded.info.licence, loaded.info.data) == ("CC-BY-4.0", "random numbers")
    assert (loaded.work_size, loaded.diffusion.num_iterations) == (32, 3)
    config = json.loads((folder / "config.json").read_text())
    assert config["generator"]["class_path"] == "sdm_lightning.models.Generator"
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "sdm-lightning"
    scores = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert scores == {"psnr_hole": 15.837, "kid[efficientnet-lite2]": 1.25}
    text = card.text
    assert "| `kid[efficientnet-lite2]` | 1.25 |" in text
    assert "| `psnr` | inf |" in text
    assert "Protocol `mine-100`, 100 images" in text
    assert "random numbers" in text
    assert loaded.info.sha256 in text
    assert "![" in text
    assert "## Limits" in text
    assert loaded.info.extra == {"checkpoint_sha256": "a" * 64}  # a copy's scores can be checked


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"checkpoint": {"path": "o.ckpt", "sha256": "b" * 64}}, "scores o.ckpt, not the check"),
        ({"checkpoint": None}, "scores no checkpoint, not the checkpoint of"),
        ({"parameters": "raw"}, "scores the raw weights, and those of .* are ema"),
        ({"checkpoint": "last.ckpt"}, "no record of sdm test"),
    ],
)
def test_scores_of_other_weights_are_refused(
    tiny_weights: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text(json.dumps({**RECORD, **change}) + "\n")
    with pytest.raises(InputError, match=says):
        exported(tiny_weights).save_pretrained(tmp_path / "repo", results=results)
    with pytest.raises(InputError, match=r"no record|does not say which checkpoint"):
        Inpainter.from_pretrained(tiny_weights).save_pretrained(tmp_path / "repo", results=results)
    assert not (tmp_path / "repo").exists()


def test_scores_of_the_weights_themselves(tiny_weights: Path, tmp_path: Path) -> None:
    """``sdm test --ckpt_path WEIGHTS`` records the hash of the weights file."""
    weights = Inpainter.from_pretrained(tiny_weights)
    assert weights.info is not None
    results = tmp_path / "results.jsonl"
    record = {**RECORD, "checkpoint": {"path": "w", "sha256": weights.info.sha256}}
    results.write_text(json.dumps({**record, "parameters": "raw"}) + "\n")
    with pytest.raises(InputError, match="scores the raw weights, and those of"):
        weights.save_pretrained(tmp_path / "repo", results=results)
    results.write_text(json.dumps(record) + "\n")
    weights.save_pretrained(tmp_path / "repo", results=results)


def test_an_edited_card_is_not_replaced_unasked(tiny_weights: Path, tmp_path: Path, capsys) -> None:
    words = ["push", str(tiny_weights), "me/holes", "--folder", str(tmp_path)]
    main(words)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "config.json").unlink()
    with pytest.raises(SystemExit):
        main(words)
    assert "README.md: exists already; --overwrite true replaces it" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "mine"
    assert not (tmp_path / "config.json").exists()
    main([*words, "--overwrite"])
    assert "## Limits" in (tmp_path / "README.md").read_text()


def test_a_folder_of_a_network_from_elsewhere(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_networks.py").write_text(
        "from sdm_lightning.models import Generator\n\n\nclass Own(Generator):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = Inpainter.from_pretrained(tiny_weights)
    assert own.info is not None
    own.info.generator["class_path"] = "own_networks.Own"
    folder = own.save_pretrained(tmp_path / "repo")
    trusted = ("sdm_lightning", "own_networks")
    loaded = Inpainter.from_pretrained(folder, trusted_packages=trusted)
    assert loaded.info is not None
    assert type(loaded.generator).__name__ == "Own"
    assert loaded.info.sha256 in (folder / "README.md").read_text()


def test_push_and_load_again(fake_hub: FakeHub, tiny_weights: Path) -> None:
    inpainter = Inpainter.from_pretrained(tiny_weights)
    address = inpainter.push_to_hub("me/holes")
    assert address.startswith(f"{fake_hub.address}/me/holes/commit/")
    assert set(fake_hub.commits["me/holes"][-1]) >= {"model.safetensors", "config.json"}
    loaded = Inpainter.from_pretrained("me/holes")
    assert same(loaded, inpainter)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    mask = np.ones((16, 16), dtype=bool)
    mask[4:9, 4:9] = False
    assert np.array_equal(loaded(image, mask).array, inpainter(image, mask).array)


def test_a_commit_pins_the_weights(
    fake_hub: FakeHub, tiny_weights: Path, smallest_weights: Path
) -> None:
    first = fake_hub.commit("me/holes", {"model.safetensors": tiny_weights.read_bytes()})
    fake_hub.commit("me/holes", {"model.safetensors": smallest_weights.read_bytes()})
    old, new = Inpainter.from_pretrained(tiny_weights), Inpainter.from_pretrained(smallest_weights)
    assert same(Inpainter.from_pretrained("me/holes"), new)
    assert same(Inpainter.from_pretrained(f"me/holes@{first}"), old)


def test_misspelt_options_are_refused() -> None:
    with pytest.raises(TypeError, match="parameter"):
        Inpainter.from_pretrained("demo", parameter="raw")  # type: ignore[call-arg]


def test_offline_the_cache_is_used(
    fake_hub: FakeHub, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub.commit("me/holes", {"model.safetensors": tiny_weights.read_bytes()})
    path = find_weights("me/holes")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    # Before 1.0 a session once made keeps to what held then.
    getattr(huggingface_hub.utils, "reset_sessions", lambda: None)()
    asked = len(fake_hub.requests)
    assert find_weights("me/holes") == path
    with pytest.raises(InputError, match=r"me/other: no such file .* not in the cache.*offline"):
        find_weights("me/other")
    assert len(fake_hub.requests) == asked


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("me/nothing", "no such repository on the hub"),
        ("me/pickles", "this repository has no model.safetensors"),
        ("me/pickles@v9", "has no revision 'v9'"),
        ("me/foreign", "no sdm_lightning configuration inside"),
    ],
)
def test_errors_in_one_line(
    fake_hub: FakeHub, name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save

    fake_hub.commit("me/pickles", {"pytorch_model.bin": b"\x80\x04."})
    fake_hub.commit("me/foreign", {"model.safetensors": save({"x": torch.zeros(1)})})
    with pytest.raises(SystemExit) as stop:
        main(["export", name, "nothing.safetensors"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert not any(".bin" in request for request in fake_hub.requests)


def test_no_connection_is_one_line(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    old_place = "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE"  # before 1.0
    monkeypatch.setattr(old_place, nowhere, raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's pauses between tries
    with pytest.raises(InputError, match=r"me/holes: no such file .* cannot be reached"):
        find_weights("me/holes")


def test_the_command(
    fake_hub: FakeHub, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["push", str(tiny_weights), "me/holes", "--folder", str(tmp_path / "look")])
    assert "model.safetensors" in capsys.readouterr().out
    assert not fake_hub.requests
    main(["push", str(tiny_weights), "me/holes", "--private", "true"])
    assert "/me/holes/commit/" in capsys.readouterr().out
    main(["export", "me/holes@main", str(tmp_path / "again.safetensors")])
    assert "largest relative difference of a weight 0.00e+00" in capsys.readouterr().out


def test_what_cannot_be_pushed(tiny_weights: Path, tmp_path: Path) -> None:
    inpainter = Inpainter.from_pretrained(tiny_weights)
    with pytest.raises(SystemExit):  # the rehearsal refuses what the upload would
        main(["push", str(tiny_weights), "holes", "--folder", str(tmp_path / "look")])
    assert not (tmp_path / "look").exists()
    with pytest.raises(InputError, match="write user/repo"):
        inpainter.push_to_hub("just-a-name")
    with pytest.raises(InputError, match="built in Python"):
        Inpainter(inpainter.generator).save_pretrained(tmp_path / "repo")
