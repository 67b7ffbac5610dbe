"""The page in a real Chromium: draw, fill, download, compare; nothing is fetched from elsewhere."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdm_lightning.shipped import PACKAGE

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A running ``sdm app``; its address, and the folder for its temporary files."""
    pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    folder = tmp_path_factory.mktemp("temporary")
    process = subprocess.Popen(
        [sys.executable, "-m", "sdm_lightning", "app", "--port", "0"],
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(PACKAGE.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.match(r"(http://127\.0\.0\.1:\d+)/ shows the page", line)
    assert match, line
    yield match[1], folder
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 0
    assert not list(folder.glob("sdm-app-*")), "temporary files are left"


@pytest.fixture(params=["desktop", "phone"])
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver on this machine")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    if request.param == "phone":
        size = {"width": 390, "height": 844, "pixelRatio": 2.0}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": size})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    if request.param == "desktop":
        driver.set_window_size(1280, 1000)
    yield driver
    driver.quit()


class Page:
    """What a person does on the page."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get(address)

    def find(self, selector: str) -> Any:
        """The first element that is there, in the middle of the window."""
        self.wait(lambda: self.driver.find_elements("css selector", selector))
        element = self.driver.find_element("css selector", selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        return element

    def wait(self, condition: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.2)

    def drag(self, start: tuple[float, float], *ways: tuple[float, float]) -> None:
        """Drag over the canvas; places are shares of its width and height, 0 its middle.

        Ctrl+Z, pressed before the button is released, changes nothing.
        """
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        canvas = self.find("#painter canvas")
        time.sleep(0.5)
        width, height = canvas.size["width"], canvas.size["height"]
        chain = ActionChains(self.driver)
        chain.move_to_element_with_offset(canvas, int(start[0] * width), int(start[1] * height))
        chain.click_and_hold()
        for across, down in ways:
            chain.move_by_offset(int(across * width), int(down * height))
        chain.key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).release().perform()

    def press(self, letter: str) -> None:
        """Press a letter with Ctrl."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        chain = ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(letter)
        chain.key_up(Keys.CONTROL).perform()

    def in_view(self, element: Any) -> bool:
        """Whether all of it is within the window."""
        script = (
            "const r = arguments[0].getBoundingClientRect(); return [r.top, r.bottom, innerHeight]"
        )
        top, bottom, height = self.driver.execute_script(script, element)
        return top >= 0 and bottom <= height

    def hole(self) -> np.ndarray:
        """What is painted, at the size of the reduced photo."""
        from sdm_lightning.app.photo import decode_hole

        canvas = self.driver.find_element("css selector", "#painter canvas")
        size = self.driver.execute_script(
            "return [arguments[0].height, arguments[0].width]", canvas
        )
        return decode_hole(self.driver.execute_script("return window.sdmHole()"), tuple(size))

    def hosts(self) -> set[str]:
        """Every machine that the browser asked for anything."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = message["params"]["request"]["url"]
                if not address.startswith(("data:", "blob:", "chrome:")):
                    found.add(address.split("/")[2])
        return found


@pytest.mark.timeout(1800)
def test_draw_fill_and_download(browser: Any, server: tuple[str, Path], tmp_path: Path) -> None:
    from skimage import data

    address, temporary = server
    # Twelve megapixels, as of a phone.
    photo = np.asarray(Image.fromarray(data.coffee()).resize((4000, 3000)))
    Image.fromarray(photo).save(tmp_path / "coffee.jpg", quality=90)
    photo = np.asarray(Image.open(tmp_path / "coffee.jpg"))
    page = Page(browser, address)
    page.wait(lambda: browser.find_elements("css selector", "#painter canvas"))
    browser.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "coffee.jpg"))
    canvas = browser.find_element("css selector", "#painter canvas")
    page.wait(canvas.is_displayed)
    assert not page.hole().any()
    assert not list(temporary.rglob("coffee.jpg")), "the upload is kept"
    (tmp_path / "text.jpg").write_text("no photo")
    browser.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "text.jpg"))
    page.wait(lambda: "text.jpg: is no JPEG" in browser.find_element("tag name", "body").text)
    page.find(".toast-close").click()
    assert canvas.is_displayed()

    page.drag((-0.2, -0.2), (0.15, 0.1), (0.1, -0.05))
    stroke = page.hole()
    assert 0.002 < stroke.mean() < 0.05
    page.find("[data-tool=box]").click()
    page.drag((0.1, 0.1), (0.2, 0.2))
    both = page.hole()
    rows, columns = np.nonzero(both & ~stroke)
    height, width = both.shape
    assert abs(np.ptp(rows) / height - 0.2) < 0.02
    assert abs(np.ptp(columns) / width - 0.2) < 0.02
    page.find("[data-action=invert]").click()
    assert (page.hole() != both).mean() > 0.99
    page.find("h1").click()
    page.press("z")
    np.testing.assert_array_equal(page.hole(), both)
    page.find("[data-tool=erase]").click()
    page.drag((0.15, 0.15), (0.05, 0.05))
    erased = page.hole()
    assert not (erased & ~both).any()
    assert erased.sum() < both.sum()

    status = browser.find_element("css selector", "#status")
    page.find("#fill").click()
    page.find("#stop").click()
    page.wait(lambda: "Stopped" in status.text)
    page.find("#fill").click()
    page.wait(lambda: "Iteration" in status.text)
    time.sleep(2)
    assert page.in_view(status)
    assert page.in_view(browser.find_element("id", "stop"))
    page.wait(lambda: "Done" in status.text)
    time.sleep(2)
    assert page.in_view(status)
    for part, name in (("picture-file", "coffee-inpainted.png"), ("mask-file", "coffee-mask.png")):
        page.wait(page.find(f"#{part}").is_enabled)
        page.wait(lambda part=part: browser.find_element("id", part).get_attribute("href") or True)
        page.find(f"#{part}").click()
        page.wait((tmp_path / name).exists)
    time.sleep(1)
    known = np.asarray(Image.open(tmp_path / "coffee-mask.png")) == 255
    result = np.asarray(Image.open(tmp_path / "coffee-inpainted.png"))
    assert result.shape == photo.shape
    changed = (result != photo).any(axis=2)
    assert not changed[known].any()
    assert changed[~known].mean() > 0.9
    assert abs((~known).mean() - erased.mean()) < 0.002

    assert browser.execute_script("return localStorage.length") == 0, "the photo is kept"
    assert page.hosts() == {address.removeprefix("http://")}
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors
