"""The command ``sdm app``, short of a browser."""

import re
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdm_lightning.app.service import Service
from sdm_lightning.cli.main import main
from tests.app.conftest import painted


def test_without_gradio_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "sdm_lightning.app.page", raising=False)
    with pytest.raises(SystemExit) as stopped:
        main(["app"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "error: sdm app needs Gradio: pip install '.[app]' in a checkout of sdm_lightning\n"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--max_megabytes 0", "max_megabytes is 0; it must be at least 1"),
        ("--max_megapixels -1", "max_megapixels is -1; it must be at least 1"),
        ("--port 70000", "port is 70000; it must be 0 to 65535"),
    ],
)
def test_limits(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["app", *words.split()])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {says}\n"


class TestPage:
    @pytest.fixture(autouse=True)
    def gradio(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        # Its routes read this once, and make folders there for every page built afterwards.
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip("gradio", reason="the extra 'app' is not installed")
            pytest.importorskip("gradio.routes")

    def test_a_taken_port_is_told(
        self,
        tiny_weights: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(SystemExit) as stopped:
                main(["app", "--port", str(port), "--weights", str(tiny_weights)])
        assert stopped.value.code == 2
        assert f"error: port {port} on 127.0.0.1 cannot be used" in capsys.readouterr().err

    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
    def test_pages_of_other_sites_are_refused_and_no_run_is_stored(
        self,
        host: str,
        tiny_weights: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        import httpx

        def ask(_: float) -> None:
            """Stands in for waiting until Ctrl+C."""
            match = re.match(r"http://[^/]+(:\d+)/ shows the page", capsys.readouterr().out)
            assert match
            port = match[1]
            config = httpx.get(f"http://127.0.0.1{port}/config").json()
            assert not config.get("run_history")

            def status(name: str = "127.0.0.1", origin: str = "", post: bool = True) -> int:
                address = f"http://127.0.0.1{port}"
                headers = {"Host": name + port} | ({"Origin": origin} if origin else {})
                if not post:
                    return httpx.get(f"{address}/", headers=headers).status_code
                sent = {"files": ("p.png", b"x")}
                upload = f"{address}/gradio_api/upload"
                return httpx.post(upload, headers=headers, files=sent).status_code

            for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
                assert status(name, post=False) == 200
                assert status(name) == 200
                assert status(name, f"http://{name}{port}") == 200
            for origin in ("http://evil.com", f"http://localhost{port}", "null"):
                assert status(origin=origin) == 403
            rebound = 403 if host == "127.0.0.1" else 200
            for name in ("evil.com", "localhost.evil.com"):
                assert status(name, post=False) == rebound
                assert status(name, f"http://{name}{port}") == rebound
            raise KeyboardInterrupt

        monkeypatch.setattr("sdm_lightning.app.serve.time", SimpleNamespace(sleep=ask))
        main(["app", "--host", host, "--port", "0", "--weights", str(tiny_weights)])
        assert capsys.readouterr().out == "ended\n"

    def test_what_the_page_is_made_of(self, tiny_weights: Path, tmp_path: Path) -> None:
        from sdm_lightning.app.page import STYLE, THEME, Page

        page = Page(Service([str(tiny_weights), "demo"], "cpu", 1, tmp_path)).blocks
        config = page.get_config_file()
        by_label = {
            part["props"].get("label"): part["props"]
            for part in config["components"]
            if part["type"] in ("slider", "dropdown")
        }
        assert [choice[0] for choice in by_label["Weights"]["choices"]] == ["tiny", "demo"]
        assert by_label["Iterations"]["value"] == 3  # as the first weights were made for
        assert not page.analytics_enabled
        # Fonts are the system's; the browser test watches what a page really asks for.
        assert not re.findall(r"https?://", f"{STYLE} {THEME._stylesheets}")

    def test_a_refused_file_changes_only_the_upload_field(
        self, service: Service, upload: Callable[..., Path]
    ) -> None:
        call = functions(service)
        text = upload(np.zeros((20, 30), np.uint8)).with_name("text.jpg")
        text.write_text("no photo")
        ((field, value),) = call["opened"](str(text), REQUEST).items()
        assert (field.label, value) == ("Photo", None)
        call["opened"](str(upload(np.zeros((20, 30), np.uint8))), REQUEST)
        small = upload(np.zeros((10, 10), np.uint8))
        assert call["masked"](str(small), REQUEST) == {"__type__": "update"}
        assert service.photo("a").given_hole is None

    def test_fill_answers_at_once_and_a_stopped_run_changes_nothing(
        self, service: Service, upload: Callable[..., Path]
    ) -> None:
        call = functions(service)
        hole = np.zeros((20, 30), bool)
        hole[5:10, 5:10] = True
        call["opened"](str(upload(np.zeros((20, 30), np.uint8))), REQUEST)
        settings = [painted(hole), "tiny", 1, 1, 0, "32-true"]
        turn, shown = list(call["asked"](REQUEST).values())[:2]
        assert "Waiting in the queue" in shown
        call["stopped"](REQUEST)
        assert list(call["filled"](REQUEST, turn, *settings)) == []
        again = next(iter(call["asked"](REQUEST).values()))
        *_, last = call["filled"](REQUEST, again, *settings)
        (text,) = [value for part, value in last.items() if part.elem_id == "status"]
        assert "Done: 4.2% of the picture filled, seed 0" in text


REQUEST = SimpleNamespace(session_hash="a")


def functions(service: Service) -> dict[str, Callable[..., Any]]:
    """What the page calls, by name."""
    from sdm_lightning.app.page import Page

    return {one.name: one.fn for one in Page(service).blocks.fns.values() if one.fn is not None}
