"""The page itself, in Gradio."""

import html
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from sdm_lightning.app.filling import Stopped
from sdm_lightning.app.photo import Photo, noted
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
#variants .grid-wrap { min-height: 0; margin-top: 32px; overflow: visible; }
"""


def build_page(service: Service) -> gr.Blocks:
    """Lay the page out and connect it to the server's side."""
    first = service.inpainter(next(iter(service.weights)))
    with gr.Blocks(
        title="SDM inpainting", analytics_enabled=False, delete_cache=(300, 3600)
    ) as page:
        gr.Markdown(
            "# Fill a hole in a photo\n"
            "Open a photo, paint over what is to be filled, press **Fill**. Everything stays on "
            "the machine that this page runs on, and is forgotten when the page is closed."
        )
        with gr.Row():
            with gr.Column(min_width=320):
                upload = gr.File(label="Photo", file_types=FILE_TYPES, type="filepath", height=130)
                painter = gr.HTML(
                    html_template=(HERE / "painter.html").read_text(encoding="utf-8"),
                    css_template=(HERE / "painter.css").read_text(encoding="utf-8"),
                    js_on_load=(HERE / "painter.js").read_text(encoding="utf-8"),
                    elem_id="painter",
                    apply_default_css=False,
                )
                painted = gr.Textbox(visible=False)
                turn = gr.Number(visible=False)
                with gr.Row():
                    mask = gr.UploadButton(
                        "Upload a mask (black is filled)", file_types=FILE_TYPES, size="sm"
                    )
                with gr.Accordion("Settings", open=False):
                    weights = gr.Dropdown(
                        list(service.weights), value=next(iter(service.weights)), label="Weights"
                    )
                    with gr.Row():
                        iterations = gr.Slider(
                            1, MAX_ITERATIONS, first.diffusion.num_iterations, step=1,
                            label="Iterations",
                        )  # fmt: skip
                        samples = gr.Slider(1, MAX_SAMPLES, 1, step=1, label="Variants")
                    with gr.Row():
                        seed = gr.Number(0, label="Seed")
                        precision = gr.Radio(PRECISIONS, value="32-true", label="Precision")
                fill = gr.Button("Fill", variant="primary", elem_id="fill")
            with gr.Column(min_width=320):
                status = gr.HTML(elem_id="status")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
                live = gr.Image(
                    label="Filling in", format="jpeg", interactive=False, visible=False,
                    buttons=[],
                )  # fmt: skip
                with gr.Column(visible=False) as results:
                    gallery = gr.Gallery(
                        label="Variants: choose one", columns=3, height="auto", format="jpeg",
                        allow_preview=False, visible=False, elem_id="variants",
                        object_fit="contain", buttons=[],
                    )  # fmt: skip
                    with gr.Tabs():
                        with gr.Tab("Compare"):
                            slider = gr.ImageSlider(
                                label="Before and after: drag the line",
                                format="jpeg",
                                interactive=False,
                                buttons=["fullscreen"],
                                elem_id="before-after",
                            )
                        with gr.Tab("Iterations"):
                            step = gr.Slider(1, 2, 2, step=1, label="Iteration")
                            frame = gr.Image(
                                show_label=False, format="jpeg", interactive=False, buttons=[]
                            )
                        with gr.Tab("Uncertainty"):
                            map_ = gr.Image(
                                show_label=False, format="jpeg", interactive=False, buttons=[]
                            )
                            gr.HTML(_legend())
                    with gr.Row():
                        picture_file = gr.DownloadButton("Download picture", elem_id="picture-file")
                        mask_file = gr.DownloadButton("Download mask", elem_id="mask-file")
        chosen = gr.State(0)

        idle = {
            fill: gr.update(interactive=True),
            stop: gr.update(visible=False),
            live: gr.update(visible=False, value=None),
        }

        def opened(path: str, request: gr.Request) -> dict[Any, Any]:
            load = _told(service.open, request.session_hash, Path(path))
            # The upload field is emptied: its file is removed already.
            if load is None:
                return {upload: None}
            photo = service.photo(request.session_hash)
            hidden = gr.update(visible=False)
            return {
                painter: load, upload: None, status: _status(_described(photo)),
                results: hidden, **idle,
            }  # fmt: skip

        def masked(path: str, request: gr.Request) -> Any:
            return _told(service.give_mask, request.session_hash, Path(path)) or gr.skip()

        def asked(request: gr.Request) -> dict[Any, Any]:
            photo = service.session(request.session_hash).photo
            return {
                turn: service.ask(request.session_hash),
                status: _status("Waiting for its turn"),
                fill: gr.update(interactive=False),
                stop: gr.update(visible=True),
                results: gr.update(visible=False),
                live: gr.skip() if photo is None else gr.update(visible=True, value=photo.preview),
            }

        def filled(request: gr.Request, *settings: Any) -> Iterator[dict[Any, Any]]:
            key = request.session_hash
            session = service.session(key)
            event = None
            try:
                for event in service.fill(key, *settings):
                    shown_live = gr.update(visible=True, value=event.picture)
                    yield {status: _status(event.text, event.share), live: shown_live}
            except Stopped:
                # Stop or another photo has freed the page; the last event may have come after that.
                now = service.sessions.get(key, session)
                if event is not None and now.turn == 0:
                    text = "Stopped" if now is session else _described(now.photo)
                    yield {status: _status(text), **idle}
                return
            except InputError as error:
                gr.Warning(str(error))
                yield {status: _status(""), **idle}
                return
            except Exception as error:  # the page must not stay without its button
                gr.Warning(f"Failed: {one_line(error)}")
                yield {status: _status(""), **idle}
                raise
            seeds = [one.seed for one in session.variants]
            several = len(seeds) > 1
            text = f"seeds {seeds[0]} to {seeds[-1]}" if several else f"seed {seeds[0]}"
            pictures = [(one.picture, f"Seed {one.seed}") for one in session.variants]
            yield {
                **idle,
                **shown(0, session),
                status: _status(f"Done: {session.share:.1%} of the picture filled, {text}"),
                results: gr.update(visible=True),
                gallery: gr.update(
                    visible=several, value=pictures if several else None,
                    selected_index=0 if several else None,
                ),
            }  # fmt: skip

        def shown(index: int, session: Session) -> dict[Any, Any]:
            assert session.photo is not None
            one = session.variants[index]
            count = len(one.frames)
            return {
                chosen: index,
                slider: (session.photo.preview, one.picture),
                step: gr.update(maximum=max(count, 2), value=count, visible=count > 1),
                frame: one.frames[-1],
                map_: one.overlay,
                picture_file: gr.update(interactive=False, value=None),
                mask_file: gr.update(interactive=False, value=None),
            }

        def selected(event: gr.SelectData, request: gr.Request) -> dict[Any, Any]:
            return shown(event.index, service.session(request.session_hash))

        def frame_shown(number: int, index: int, request: gr.Request) -> Any:
            variants = service.session(request.session_hash).variants
            return variants[index].frames[int(number) - 1] if index < len(variants) else None

        def downloads(index: int, request: gr.Request) -> tuple[Any, Any]:
            key = request.session_hash
            if index >= len(service.session(key).variants):
                return gr.update(), gr.update()
            files = service.downloads(key, index)
            return tuple(gr.update(value=str(file), interactive=True) for file in files)

        def stopped(request: gr.Request) -> dict[Any, Any]:
            service.stop(request.session_hash)
            return {status: _status("Stopped"), **idle}

        def closed(request: gr.Request) -> None:
            service.close(request.session_hash)

        views = [chosen, slider, step, frame, map_, picture_file, mask_file]
        files = [picture_file, mask_file]
        quick = {"queue": False, "show_progress": "hidden"}
        upload.upload(
            opened, upload, [painter, upload, status, results, *idle], show_progress="minimal"
        )
        mask.upload(masked, mask, painter, show_progress="minimal")
        click = fill.click(asked, None, [turn, status, results, *idle], **quick)
        click.then(None, js=SHOW_STATUS)
        run = click.then(
            filled,
            [turn, painted, weights, iterations, samples, seed, precision],
            [status, results, gallery, *idle, *views],
            js=TAKE_HOLE,
            show_progress="hidden",
            trigger_mode="multiple",  # one that was stopped may still lie in the queue
        )
        run.then(None, js=SHOW_STATUS)
        run.then(downloads, chosen, files, show_progress="hidden")
        # When the queue is full, the run was never started.
        run.failure(stopped, None, [status, *idle], **quick)
        stop.click(stopped, None, [status, *idle], **quick)
        gallery.select(selected, None, views, show_progress="hidden").then(
            downloads, chosen, files, show_progress="hidden"
        )
        step.input(frame_shown, [step, chosen], frame, trigger_mode="always_last", **quick)
        page.unload(closed)
    return page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)


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


def _described(photo: Photo | None) -> str:
    if photo is None:
        return ""
    height, width = photo.picture.size
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
