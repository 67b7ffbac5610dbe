"""The page with onnxruntime-web in a headless Chromium: draw a hole, fill it, compare."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdm_lightning.inference import load_generator
from sdm_lightning.inference.export import InpaintingGraph, export_model
from tests.examples.chromium import BROWSER, DRIVER, RUN, chromium, served

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
RUNTIME = EXAMPLE / "node_modules" / "onnxruntime-web"
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium with chromedriver here"),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason=f"run npm install in {EXAMPLE.name}/ first"),
]


@pytest.fixture
def browser() -> Iterator[Any]:
    pytest.importorskip("selenium", reason="selenium is not installed (extra dev)")
    with chromium() as driver:
        yield driver


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """Serves the page with a model; returns its address."""
    folder = tmp_path / "page"
    folder.mkdir()
    for name in ("index.html", "inpaint.js"):
        shutil.copy(EXAMPLE / name, folder)
    (folder / "node_modules").symlink_to(RUNTIME.parent)
    with served(folder) as address:

        def serve_model(model: Path) -> str:
            shutil.copy(model, folder / "model.onnx")
            return address

        yield serve_model


def wait_for(driver: Any, start: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    def said(_: Any) -> bool:
        text = driver.find_element("id", "status").text
        assert "cannot be loaded" not in text, text
        assert "Failed" not in text, text
        return bool(text.startswith(start))

    WebDriverWait(driver, 300).until(said)


def pixels(driver: Any) -> np.ndarray:
    from base64 import b64decode

    data = driver.execute_script("return canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(b64decode(data.partition(",")[2]))).convert("RGB"))


def check_page(driver: Any, address: str, graph: InpaintingGraph, side: int, folder: Path) -> float:
    """Draws and fills a hole by hand, then compares a run with PyTorch; returns milliseconds."""
    from selenium.webdriver import ActionChains

    rows, columns = np.mgrid[:160, :200]
    photo = np.stack([rows, columns, 255 - rows], axis=2).astype(np.uint8)
    Image.fromarray(photo).save(folder / "photo.png")
    driver.get(address)
    wait_for(driver, "Choose")
    driver.find_element("id", "file").send_keys(str(folder / "photo.png"))
    wait_for(driver, "Draw")
    np.testing.assert_array_equal(pixels(driver), photo)
    canvas = driver.find_element("id", "canvas")
    # So fast that the page hears of both ends alone.
    stroke = ActionChains(driver, duration=0).move_to_element(canvas).click_and_hold()
    stroke.move_by_offset(60, 0).release().perform()
    hole = (pixels(driver) == [230, 60, 60]).all(axis=2)
    assert hole.sum() == pytest.approx(48 * 60 + np.pi * 24**2, rel=0.05)
    driver.find_element("id", "fill").click()
    wait_for(driver, "Filled")
    filled = pixels(driver)
    np.testing.assert_array_equal(filled[~hole], photo[~hole])
    assert (filled[hole] != photo[hole]).any(axis=1).mean() > 0.9
    assert (filled[hole] != [230, 60, 60]).any(axis=1).mean() > 0.9

    inputs = graph.example(side, 2 * side, seed=4)
    with torch.no_grad():
        expected = graph(*inputs)[0]
    image, mask, latent, noise = (tensor.flatten().tolist() for tensor in inputs)
    answer = driver.execute_async_script(RUN, image, mask, 2 * side, side, latent, noise)
    assert not isinstance(answer, str), answer
    found = torch.tensor(answer[0]).view_as(expected)
    print(f"largest difference {float((found - expected).abs().max()):.2e}, {answer[1]:.0f} ms")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    return float(answer[1])


def test_draw_and_fill(
    browser: Any, serve: Any, smallest_weights: Path, onnx_model: Path, tmp_path: Path
) -> None:
    generator, info = load_generator(smallest_weights)
    graph = InpaintingGraph(generator.half().float(), info.build_diffusion())
    check_page(browser, serve(onnx_model), graph, 16, tmp_path)


@pytest.mark.slow
def test_the_shipped_weights(browser: Any, serve: Any, onnx_model: Path, tmp_path: Path) -> None:
    export_model("demo", str(tmp_path / "demo.onnx"), half=True)
    generator, info = load_generator("demo")
    graph = InpaintingGraph(generator.half().float(), info.build_diffusion())
    check_page(browser, serve(tmp_path / "demo.onnx"), graph, 64, tmp_path)


def test_a_missing_model_is_said_on_the_page(browser: Any, serve: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    browser.get(serve(tmp_path / "empty"))
    from selenium.webdriver.support.ui import WebDriverWait

    text = WebDriverWait(browser, 300).until(
        lambda driver: driver.find_element("id", "status").text.replace("Loading the model ...", "")
    )
    assert text.startswith("The model cannot be loaded: ")
