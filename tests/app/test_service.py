import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.app.filling import MISSING, Stopped, run
from sdm_lightning.app.photo import decode_hole, open_photo
from sdm_lightning.app.service import MAX_SESSIONS, Progress, Service
from sdm_lightning.errors import InputError
from sdm_lightning.inference import Inpainter
from tests.app.conftest import RNG, painted

HOLE = np.zeros((60, 80), bool)
HOLE[10:26, 12:34] = True
HOLE[40:52, 50:70] = True


def photo_array(*channels: int) -> np.ndarray:
    return RNG.integers(0, 256, (60, 80, *channels), dtype=np.uint8)


def filled(service: Service, key: str = "a", samples: int = 2) -> list[Progress]:
    turn = service.ask(key)
    return list(service.fill(key, turn, painted(HOLE), "tiny", 3, samples, 7, "32-true"))


def test_a_photo_is_filled_step_by_step(service: Service, upload: Callable[..., Path]) -> None:
    array = photo_array(3)
    sent = upload(array, "my photo.png", icc_profile=b"profile")
    service.open("a", sent)
    assert not sent.exists()
    starting, *steps = filled(service)
    assert starting.share == 0
    assert (starting.picture[HOLE] == MISSING).all()
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    cut_outs = len(steps) // 6
    np.testing.assert_allclose(shares, np.arange(1, 6 * cut_outs + 1) / (6 * cut_outs))
    assert steps[0].text.startswith("Iteration 1 of 3")
    assert steps[-1].text.endswith("sample 2 of 2")
    # The picture fills in: grey holes give way, and known pixels never change.
    for step in steps:
        np.testing.assert_array_equal(step.picture[~HOLE], array[~HOLE])
    missing = [(step.picture[HOLE] == MISSING).all(axis=1).sum() for step in steps]
    assert missing[0] > missing[1] > missing[2]

    samples = service.session("a").samples
    assert [sample.seed for sample in samples] == [7, 8]
    for index, sample in enumerate(samples):
        assert len(sample.frames) == 3
        picture, mask = service.downloads("a", index)
        assert (picture.name, mask.name) == ("my photo-inpainted.png", "my photo-mask.png")
        result = np.asarray(Image.open(picture))
        assert Image.open(picture).info["icc_profile"] == b"profile"
        np.testing.assert_array_equal(result, sample.picture)
        np.testing.assert_array_equal(result, sample.frames[-1])
        np.testing.assert_array_equal(result[~HOLE], array[~HOLE])
        np.testing.assert_array_equal(np.asarray(Image.open(mask)), ~HOLE * np.uint8(255))
        np.testing.assert_array_equal(sample.overlay[~HOLE], array[~HOLE])
        assert (sample.overlay[HOLE] != result[HOLE]).any()
    direct = Inpainter.from_pretrained(service.weights["tiny"])(
        array, ~HOLE, num_iterations=3, seed=8
    )
    np.testing.assert_array_equal(samples[1].picture, direct.array)


@pytest.mark.parametrize("channels", [(), (4,)])
def test_grey_and_transparent_photos(
    service: Service, upload: Callable[..., Path], channels: tuple[int, ...]
) -> None:
    array = photo_array(*channels)
    if channels:
        array[:, :, 3] = np.where(HOLE, 0, 255)
    sent = json.loads(service.open("a", upload(array)))
    if channels:
        np.testing.assert_array_equal(decode_hole(sent["hole"], HOLE.shape), HOLE)
    else:
        assert sent["hole"] is None
    filled(service, samples=1)
    result = np.asarray(Image.open(service.downloads("a", 0)[0]))
    assert result.shape == array.shape
    np.testing.assert_array_equal(result[~HOLE], array[~HOLE])
    if channels:
        assert (result[:, :, 3] == 255).all()


def test_transparency_outside_the_hole_is_kept(
    service: Service, upload: Callable[..., Path]
) -> None:
    """The given hole was erased and another one painted: what was transparent stays so."""
    array = photo_array(4)
    array[:, :, 3] = np.where(HOLE, 255, 100)
    service.open("a", upload(array))
    filled(service, samples=1)
    result = np.asarray(Image.open(service.downloads("a", 0)[0]))
    np.testing.assert_array_equal(result[~HOLE], array[~HOLE])
    assert (result[HOLE][:, 3] == 255).all()


def test_an_uploaded_mask_is_painted(service: Service, upload: Callable[..., Path]) -> None:
    service.open("a", upload(photo_array(3)))
    mask = upload(~HOLE * np.uint8(255), "mask.png")
    sent = json.loads(service.give_mask("a", mask))
    assert not mask.exists()
    np.testing.assert_array_equal(decode_hole(sent["hole"], HOLE.shape), HOLE)


def test_what_is_uploaded_again_is_new_to_the_page(
    service: Service, upload: Callable[..., Path]
) -> None:
    """Gradio leaves out values that are the same as before."""
    array, mask = photo_array(3), ~HOLE * np.uint8(255)
    assert service.open("a", upload(array)) != service.open("a", upload(array))
    assert service.give_mask("a", upload(mask)) != service.give_mask("a", upload(mask))


def test_nothing_is_kept_of_a_closed_page(service: Service, upload: Callable[..., Path]) -> None:
    service.open("a", upload(photo_array(3)))
    filled(service, samples=1)
    picture, _ = service.downloads("a", 0)
    stop = service.session("a").stop
    service.close("a")
    assert stop.is_set()
    assert not picture.exists()
    assert not list(service.folder.iterdir())
    with pytest.raises(InputError, match="the server keeps those of 4 pages"):
        filled(service)


def test_the_page_used_longest_ago_makes_place(
    service: Service, upload: Callable[..., Path]
) -> None:
    for number in range(MAX_SESSIONS + 2):
        service.open(str(number), upload(photo_array(3)))
        service.session("1")
    assert set(service.sessions) == {"1", *map(str, range(3, MAX_SESSIONS + 2))}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"weights": "/etc/passwd"}, "weights /etc/passwd: choose one of tiny, demo"),
        ({"num_iterations": 0}, "iterations is 0; choose 1 to 16"),
        ({"num_samples": 7}, "samples is 7; choose 1 to 6"),
        ({"seed": None}, "seed is empty; choose a whole number from 0 to 4294967295"),
        ({"seed": -3}, "seed is -3; choose"),
        ({"seed": 1.5}, "seed is 1.5; choose"),
        ({"seed": 2**32}, "seed is 4294967296; choose"),
        ({"precision": "16"}, "choose 32-true, bf16-mixed or auto"),
    ],
)
def test_settings_out_of_range(
    service: Service, upload: Callable[..., Path], changed: dict[str, object], says: str
) -> None:
    service.open("a", upload(photo_array(3)))
    settings = {
        "weights": "tiny", "num_iterations": 2, "num_samples": 1, "seed": 0, "precision": "32-true",
    } | changed  # fmt: skip
    with pytest.raises(InputError, match=says):
        list(service.fill("a", service.ask("a"), painted(HOLE), **settings))  # type: ignore[arg-type]


def test_weights_are_checked_before_the_page_opens(tmp_path: Path, tiny_weights: Path) -> None:
    with pytest.raises(InputError, match="no such weights"):
        Service(["absent"], "cpu", 1, tmp_path)
    with pytest.raises(InputError, match="would call them demo, demo; each needs a name of its"):
        Service(["demo", "demo"], "cpu", 1, tmp_path)


def test_the_hubs_weights_are_called_by_their_repository(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("me/holes", "me/other"):  # folders of the hub's layout, named like repositories
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_bytes(tiny_weights.read_bytes())
    given = ["me/holes", "me/other", str(tiny_weights)]
    assert list(Service(given, "cpu", 1, tmp_path).weights) == ["me/holes", "me/other", "tiny"]


def test_a_run_can_be_stopped(service: Service, upload: Callable[..., Path]) -> None:
    service.open("a", upload(photo_array(3)))
    steps = service.fill("a", service.ask("a"), painted(HOLE), "tiny", 16, 6, 0, "32-true")
    assert [next(steps).text for _ in range(2)][1].startswith("Iteration 1 of 16")
    service.stop("a")
    with pytest.raises(Stopped):
        list(steps)
    assert service.session("a").samples == []


@pytest.mark.parametrize("instead", ["stop", "ask", "open"])
def test_a_run_that_waits_is_not_started_once_it_is_not_wanted(
    service: Service, upload: Callable[..., Path], instead: str
) -> None:
    array = photo_array(3)
    service.open("a", upload(array))
    turn = service.ask("a")
    if instead == "open":
        service.open("a", upload(array))
    else:
        getattr(service, instead)("a")
    with pytest.raises(Stopped):
        next(service.fill("a", turn, painted(HOLE), "tiny", 1, 1, 0, "32-true"))


def test_a_run_that_ends_while_another_photo_is_opened_has_no_result(
    service: Service, upload: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    service.open("a", upload(photo_array(3)))
    keep = service._keep

    def kept(*arguments: Any) -> None:
        keep(*arguments)
        service.open("a", upload(photo_array(3)))

    monkeypatch.setattr(service, "_keep", kept)
    with pytest.raises(Stopped):
        filled(service)
    assert service.session("a").samples == []


def test_leaving_a_run_half_read_ends_its_thread(
    service: Service, upload: Callable[..., Path]
) -> None:
    picture = open_photo(upload(photo_array(3)), 10_000).picture
    stop = threading.Event()
    steps = run(
        service.inpainter("tiny"), picture, HOLE, stop,
        num_iterations=16, num_samples=6, seed=0, precision="32-true",
    )  # fmt: skip
    next(steps)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "fill"]
    steps.close()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert stop.is_set()
