"""The command ``sdm app``."""

import os
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdm_lightning.errors import InputError
from sdm_lightning.signals import handled


def serve_app(
    weights: list[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str = "auto",
    max_megabytes: int = 40,
    max_megapixels: int = 64,
    browser: bool = False,
) -> None:
    """Open a page for filling holes in photos.

    Open a photo in the browser, paint over what is to be filled, and watch it being filled. The
    page is served to this machine alone unless --host says otherwise, asks no other machine for
    anything, and keeps nothing: photos stay in memory until their page is closed, and temporary
    files are removed when it ends (Ctrl+C).

    Args:
        weights: Names of packaged weights, .safetensors or .ckpt files that the page offers; may be
            given several times. Default: photos-128.
        host: Address to listen on. 0.0.0.0 makes the page reachable from the whole network,
            without a password.
        port: Port to listen on; 0: any that is free.
        device: cpu, cuda, mps, or auto.
        max_megabytes: Larger files are refused.
        max_megapixels: Larger photos are refused.
        browser: Open the page in the browser.

    Raises:
        InputError: If an option is out of range, the weights or the port cannot be used, or Gradio
            is not installed.
    """
    for name, value in (("max_megabytes", max_megabytes), ("max_megapixels", max_megapixels)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if not 0 <= port <= 65535:
        raise InputError(f"port is {port}; it must be 0 to 65535")
    # Before Gradio is imported: it reads these once.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_RUN_HISTORY"] = "False"  # the browser would store photos
    with _ending_once(), tempfile.TemporaryDirectory(prefix="sdm-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder, "gradio"))
        try:
            from starlette.middleware import Middleware

            from sdm_lightning.app.origins import OwnPageOnly
            from sdm_lightning.app.page import STYLE, THEME, Page
        except ModuleNotFoundError as error:
            if error.name not in ("gradio", "starlette"):
                raise
            raise InputError(
                "sdm app needs Gradio: pip install '.[app]' in a checkout of sdm_lightning"
            ) from error
        from sdm_lightning.app.service import Service
        from sdm_lightning.inference.locating import DEFAULT_WEIGHTS

        # A large painted hole is intended, and the page itself warns about mask files.
        warnings.filterwarnings("ignore", "the mask array")
        service = Service(weights or [DEFAULT_WEIGHTS], device, max_megapixels * 1_000_000, folder)
        page = Page(service).blocks
        try:
            _, url, _ = page.launch(
                server_name=host,
                server_port=port or None,
                inbrowser=browser,
                share=False,
                ssr_mode=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=max_megabytes * 1_000_000,
                enable_monitoring=False,
                footer_links=[],
                app_kwargs={"middleware": [Middleware(OwnPageOnly, host=host)]},
                theme=THEME,
                css=STYLE,
            )
        except OSError as error:
            raise InputError(
                f"port {port} on {host} cannot be used (taken by another program?): choose "
                "another --port, or 0 for any that is free"
            ) from error
        print(f"{url} shows the page; Ctrl+C ends it", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("ended")
        finally:
            page.close(verbose=False)
            for key in list(service.sessions):
                service.close(key)


@contextmanager
def _ending_once() -> Iterator[None]:
    """End at SIGTERM as at Ctrl+C; a second signal does not keep files from being removed."""

    def end(*_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    with handled((signal.SIGTERM, signal.SIGINT), end):
        yield
