"""The example page in a headless Chromium, for its test and for ``benchmarks/engines.py``."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
RUN = """
const [planes, known, w, h, latent, noise, done] = arguments, floats = (a) => new Float32Array(a);
const start = performance.now();
model.run(floats(planes), floats(known), w, h, floats(latent), floats(noise)).then(
  (out) => done([Array.from(out), performance.now() - start]), (error) => done(`${error}`));
"""
"""Fills a hole; answers with the result and milliseconds, or with an error's text."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder with the page; yields the page's address."""
    handler = functools.partial(_Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; yields selenium's driver."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=800,800"):
        options.add_argument(f"--{word}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(300)
    yield driver
    driver.quit()
