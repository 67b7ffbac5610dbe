"""The page itself, in Gradio."""

import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from sdm_lightning.app.filling import Stopped
from sdm_lightning.app.photo import OpenPhoto, noted
from sdm_lightning.app.service import MAX_ITERATIONS, MAX_SAMPLES, Service, Session
from sdm_lightning.errors import InputError, one_line
from sdm_lightning.inference.jobs import SUFFIXES
from sdm_lightning.inference.results import heat_map

HERE = Path(__file__).parent
PRECISIONS = [("Full (32 bit)", "32-true"), ("Half (bfloat16)", "bf16-mixed")]
QUEUE_SIZE = 8
FILE_TYPES = list(SUFFIXES)

TAKE_HOLE = "(turn, painted, ...rest) => [turn, window.sdmHole(), ...rest]"
# A phone shows one column, and with open settings Fill lies far below the status. What the event
# before has changed is laid out a moment later, and pictures after that.
SHOW_STATUS = """() => {
  const show = () => {
    const status = document.getElementById("status"), { top } = status.getBoundingClientRect();
    if (top < 0 || top > window.innerHeight / 3) status.scrollIntoView({ behavior: "smooth" });
  };
  for (const wait of [300, 1200]) setTimeout(show, wait);
}"""

THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])

STYLE = """
.gradio-container { width: 100% !important; max-width: 1280px !important; }
.legend { display: flex; align-items: center; gap: 10px; }
.legend i { flex: 1; height: 14px; border-radius: 7px; }
#status { scroll-margin-top: 16px; }
#status progress { width: 100%; height: 10px; appearance: none; border: 0; }
#status progress::-webkit-progress-value { background: var(--color-accent); }
#status progress::-moz-progress-bar { background: var(--color-accent); }
#status progress, #status progress::-webkit-progress-bar {
  background: var(--border-color-primary); border-radius: 5px; overflow: hidden;
}
#samples .grid-wrap { min-height: 0; margin-top: 32px; overflow: visible; }
"""


class Page:
    """The page's components, and what their events call.

    Args:
        service: The server's side.

    Attributes:
        blocks: The page as Gradio serves it.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.blocks = gr.Blocks(
            title="SDM inpainting", analytics_enabled=False, delete_cache=(300, 3600)
        )
        with self.blocks:
            gr.Markdown(
                "# Fill a hole in a photo\n"
                "Open a photo, paint over what is to be filled, press **Fill**. Everything stays "
                "on the machine that this page runs on, and is forgotten when the page is closed."
            )
            with gr.Row():
                with gr.Column(min_width=320):
                    self._add_inputs()
                with gr.Column(min_width=320):
                    self._add_results()
            self.chosen = gr.State(0)
            self.idle = {
                self.fill: gr.update(interactive=True),
                self.stop: gr.update(visible=False),
                self.live: gr.update(visible=False, value=None),
            }
            self._connect()
        self.blocks.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)

    def _add_inputs(self) -> None:
        names = list(self.service.weights)
        first = self.service.inpainter(names[0])
        self.upload = gr.File(label="Photo", file_types=FILE_TYPES, type="filepath", height=130)
        self.painter = gr.HTML(
            html_template=(HERE / "painter.html").read_text(encoding="utf-8"),
            css_template=(HERE / "painter.css").read_text(encoding="utf-8"),
            js_on_load=(HERE / "painter.js").read_text(encoding="utf-8"),
            elem_id="painter",
            apply_default_css=False,
        )
        self.painted = gr.Textbox(visible=False)
        self.turn = gr.Number(visible=False)
        with gr.Row():
            self.mask = gr.UploadButton(
                "Upload a mask (black is filled)", file_types=FILE_TYPES, size="sm"
            )
        with gr.Accordion("Settings", open=False):
            self.weights = gr.Dropdown(names, value=names[0], label="Weights")
            with gr.Row():
                self.iterations = gr.Slider(
                    1, MAX_ITERATIONS, first.diffusion.num_iterations, step=1, label="Iterations"
                )
                self.samples = gr.Slider(1, MAX_SAMPLES, 1, step=1, label="Samples")
            with gr.Row():
                self.seed = gr.Number(0, label="Seed")
                self.precision = gr.Radio(PRECISIONS, value="32-true", label="Precision")
        self.fill = gr.Button("Fill", variant="primary", elem_id="fill")

    def _add_results(self) -> None:
        picture = {"format": "jpeg", "interactive": False}
        self.status = gr.HTML(elem_id="status")
        self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        self.live = gr.Image(label="Filling in", visible=False, buttons=[], **picture)
        with gr.Column(visible=False) as self.results:
            self.gallery = gr.Gallery(
                label="Samples: choose one", columns=3, height="auto", format="jpeg",
                allow_preview=False, visible=False, elem_id="samples",
                object_fit="contain", buttons=[],
            )  # fmt: skip
            with gr.Tabs():
                with gr.Tab("Compare"):
                    self.slider = gr.ImageSlider(
                        label="Before and after: drag the line",
                        buttons=["fullscreen"],
                        elem_id="before-after",
                        **picture,
                    )
                with gr.Tab("Iterations"):
                    self.step = gr.Slider(1, 2, 2, step=1, label="Iteration")
                    self.frame = gr.Image(show_label=False, buttons=[], **picture)
                with gr.Tab("Uncertainty"):
                    self.map = gr.Image(show_label=False, buttons=[], **picture)
                    gr.HTML(_legend())
            with gr.Row():
                self.picture_file = gr.DownloadButton("Download picture", elem_id="picture-file")
                self.mask_file = gr.DownloadButton("Download mask", elem_id="mask-file")

    def _connect(self) -> None:
        """Say what each event calls, with which values, and what the answer may change."""
        idle, files = list(self.idle), [self.picture_file, self.mask_file]
        views = [self.chosen, self.slider, self.step, self.frame, self.map, *files]
        settings = [self.weights, self.iterations, self.samples, self.seed, self.precision]
        quick = {"queue": False, "show_progress": "hidden"}
        self.upload.upload(
            self.opened,
            self.upload,
            [self.painter, self.upload, self.status, self.results, *idle],
            show_progress="minimal",
        )
        self.mask.upload(self.masked, self.mask, self.painter, show_progress="minimal")
        click = self.fill.click(
            self.asked, None, [self.turn, self.status, self.results, *idle], **quick
        )
        click.then(None, js=SHOW_STATUS)
        run = click.then(
            self.filled,
            [self.turn, self.painted, *settings],
            [self.status, self.results, self.gallery, *idle, *views],
            js=TAKE_HOLE,
            show_progress="hidden",
            trigger_mode="multiple",  # one that was stopped may still lie in the queue
        )
        run.then(None, js=SHOW_STATUS)
        run.then(self.downloads, self.chosen, files, show_progress="hidden")
        # When the queue is full, the run was never started.
        run.failure(self.stopped, None, [self.status, *idle], **quick)
        self.stop.click(self.stopped, None, [self.status, *idle], **quick)
        self.gallery.select(self.selected, None, views, show_progress="hidden").then(
            self.downloads, self.chosen, files, show_progress="hidden"
        )
        self.step.input(
            self.frame_shown,
            [self.step, self.chosen],
            self.frame,
            trigger_mode="always_last",
            **quick,
        )
        self.blocks.unload(self.closed)

    def opened(self, path: str, request: gr.Request) -> dict[Any, Any]:
        """Open an uploaded photo."""
        load = _told(self.service.open, request.session_hash, Path(path))
        # The upload field is emptied: its file is removed already.
        if load is None:
            return {self.upload: None}
        return {
            **self.idle,
            self.painter: load,
            self.upload: None,
            self.status: _status(_described(self.service.photo(request.session_hash))),
            self.results: gr.update(visible=False),
        }

    def masked(self, path: str, request: gr.Request) -> Any:
        """Take an uploaded mask over."""
        return _told(self.service.give_mask, request.session_hash, Path(path)) or gr.skip()

    def asked(self, request: gr.Request) -> dict[Any, Any]:
        """Answer *Fill* at once; the run itself may have to wait."""
        photo = self.service.session(request.session_hash).photo
        preview = gr.skip() if photo is None else gr.update(visible=True, value=photo.preview)
        return {
            self.turn: self.service.ask(request.session_hash),
            self.status: _status("Waiting in the queue"),
            self.fill: gr.update(interactive=False),
            self.stop: gr.update(visible=True),
            self.results: gr.update(visible=False),
            self.live: preview,
        }

    def filled(self, request: gr.Request, *settings: Any) -> Iterator[dict[Any, Any]]:
        """Fill step by step, and show the first sample."""
        key = request.session_hash
        session = self.service.session(key)
        event = None
        try:
            for event in self.service.fill(key, *settings):
                shown_live = gr.update(visible=True, value=event.picture)
                yield {self.status: _status(event.text, event.share), self.live: shown_live}
        except Stopped:
            # Stop or another photo has freed the page; the last event may have come after that.
            now = self.service.sessions.get(key, session)
            if event is not None and now.turn == 0:
                text = "Stopped" if now is session else _described(now.photo)
                yield {self.status: _status(text), **self.idle}
            return
        except InputError as error:
            gr.Warning(str(error))
            yield {self.status: _status(""), **self.idle}
            return
        except Exception as error:  # the page must not stay without its button
            gr.Warning(f"Failed: {one_line(error)}")
            yield {self.status: _status(""), **self.idle}
            raise
        seeds = [one.seed for one in session.samples]
        several = len(seeds) > 1
        text = f"seeds {seeds[0]} to {seeds[-1]}" if several else f"seed {seeds[0]}"
        pictures = [(one.picture, f"Seed {one.seed}") for one in session.samples]
        yield {
            **self.idle,
            **self._shown(0, session),
            self.status: _status(f"Done: {session.share:.1%} of the picture filled, {text}"),
            self.results: gr.update(visible=True),
            self.gallery: gr.update(
                visible=several, value=pictures if several else None,
                selected_index=0 if several else None,
            ),
        }  # fmt: skip

    def selected(self, event: gr.SelectData, request: gr.Request) -> dict[Any, Any]:
        """Show another sample."""
        return self._shown(event.index, self.service.session(request.session_hash))

    def frame_shown(self, number: int, index: int, request: gr.Request) -> Any:
        """Return a sample's picture after one of its iterations."""
        samples = self.service.session(request.session_hash).samples
        return samples[index].frames[int(number) - 1] if index < len(samples) else None

    def downloads(self, index: int, request: gr.Request) -> tuple[Any, Any]:
        """Write a sample's files and offer them."""
        key = request.session_hash
        if index >= len(self.service.session(key).samples):
            return gr.update(), gr.update()
        files = self.service.downloads(key, index)
        return tuple(gr.update(value=str(file), interactive=True) for file in files)

    def stopped(self, request: gr.Request) -> dict[Any, Any]:
        """End the run."""
        self.service.stop(request.session_hash)
        return {self.status: _status("Stopped"), **self.idle}

    def closed(self, request: gr.Request) -> None:
        """Forget everything about a page that was closed."""
        self.service.close(request.session_hash)

    def _shown(self, index: int, session: Session) -> dict[Any, Any]:
        assert session.photo is not None
        one = session.samples[index]
        count = len(one.frames)
        return {
            self.chosen: index,
            self.slider: (session.photo.preview, one.picture),
            self.step: gr.update(maximum=max(count, 2), value=count, visible=count > 1),
            self.frame: one.frames[-1],
            self.map: one.overlay,
            self.picture_file: gr.update(interactive=False, value=None),
            self.mask_file: gr.update(interactive=False, value=None),
        }


def _told(read: Callable[[str, Path], str], key: str, path: Path) -> str | None:
    """Read an uploaded file, and show on the page what is wrong with it; None if it is refused."""
    refused = None
    with noted(path) as notes:
        try:
            load = read(key, path)
        except InputError as error:
            refused = error
    for note in notes:
        gr.Info(note)
    if refused is not None:
        gr.Warning(str(refused))
        return None
    return load


def _described(photo: OpenPhoto | None) -> str:
    if photo is None:
        return ""
    height, width = photo.picture.shape
    return f"{photo.picture.name}: {width} × {height} pixels"


def _status(text: str, share: float | None = None) -> str:
    bar = "" if share is None else f'<progress value="{share:.3f}" max="1"></progress>'
    return f"{bar}<div>{html.escape(text)}</div>"


def _legend() -> str:
    colours = np.asarray(heat_map(np.linspace(0, 1, 9, dtype=np.float32)[None]))[0]
    stops = ", ".join(f"rgb({red},{green},{blue})" for red, green, blue in colours)
    return (
        '<div class="legend"><span>most certain</span>'
        f'<i style="background: linear-gradient(to right, {stops})"></i>'
        "<span>least certain</span></div>"
        "<small>How certain the network is before the first pixels are kept, compared over "
        "all that is filled.</small>"
    )
