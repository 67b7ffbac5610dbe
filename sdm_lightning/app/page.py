"""The page itself, in Gradio."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from sdm_lightning.app.filling import Stopped
from sdm_lightning.app.service import MAX_ITERATIONS, MAX_SAMPLES, Service
from sdm_lightning.data.decode import IMAGE_EXTENSIONS
from sdm_lightning.errors import InputError, one_line
from sdm_lightning.inference.results import heat_map

HERE = Path(__file__).parent
PRECISIONS = [("Full (32 bit)", "32-true"), ("Half (bfloat16)", "bf16-mixed")]
QUEUE_SIZE = 8
FILE_TYPES = [f".{extension}" for extension in IMAGE_EXTENSIONS]

# A phone shows one column: bring the progress into view.
TAKE_HOLE = """(painted, ...rest) => {
  const status = document.getElementById("status");
  if (window.innerWidth < 700) status.scrollIntoView({ behavior: "smooth" });
  return [window.sdmHole(), ...rest];
}"""

THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])

STYLE = """
.gradio-container { width: 100% !important; max-width: 1280px !important; }
.legend { display: flex; align-items: center; gap: 10px; }
.legend i { flex: 1; height: 14px; border-radius: 7px; }
#status progress { width: 100%; height: 10px; accent-color: var(--color-accent); }
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
                        seed = gr.Number(0, precision=0, minimum=0, label="Seed")
                        precision = gr.Radio(PRECISIONS, value="32-true", label="Precision")
                with gr.Row():
                    fill = gr.Button("Fill", variant="primary", elem_id="fill")
                    stop = gr.Button("Stop", variant="stop", visible=False)
            with gr.Column(min_width=320):
                status = gr.HTML(elem_id="status")
                live = gr.Image(
                    label="Filling in", format="jpeg", interactive=False, visible=False,
                    buttons=[],
                )  # fmt: skip
                with gr.Column(visible=False) as results:
                    gallery = gr.Gallery(
                        label="Variants: choose one", columns=3, height="auto", format="jpeg",
                        allow_preview=False, visible=False, elem_id="variants",
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

        def opened(path: str, request: gr.Request) -> tuple[Any, ...]:
            with _told():
                load = service.open(request.session_hash, Path(path))
            picture = service.photo(request.session_hash).picture
            height, width = picture.size
            text = f"{picture.name}: {width} × {height} pixels"
            # The upload field is emptied: its file is removed already.
            return load, None, _status(text), gr.update(visible=False), gr.update(visible=False)

        def masked(path: str, request: gr.Request) -> str:
            with _told():
                return service.give_mask(request.session_hash, Path(path))

        def filled(request: gr.Request, *settings: Any) -> Iterator[dict[Any, Any]]:
            key = request.session_hash
            yield {
                status: _status("Starting"),
                fill: gr.update(interactive=False),
                stop: gr.update(visible=True),
                results: gr.update(visible=False),
            }
            idle = {
                fill: gr.update(interactive=True),
                stop: gr.update(visible=False),
                live: gr.update(visible=False, value=None),
            }
            try:
                for event in service.fill(key, *settings):
                    shown_live = gr.update(visible=True, value=event.picture)
                    yield {status: _status(event.text, event.share), live: shown_live}
            except Stopped:
                yield {status: _status("Stopped"), **idle}
                return
            except InputError as error:
                gr.Warning(str(error))
                yield {status: _status(""), **idle}
                return
            except Exception as error:  # the page must not stay without its button
                gr.Warning(f"Failed: {one_line(error)}")
                yield {status: _status(""), **idle}
                raise
            variants = service.session(key).variants
            share = service.session(key).share
            several = len(variants) > 1
            pictures = [(one.picture, f"Seed {one.seed}") for one in variants]
            yield {
                **idle,
                **shown(0, key),
                status: _status(f"Done: {share:.1%} of the picture filled"),
                results: gr.update(visible=True),
                gallery: gr.update(visible=several, value=pictures if several else None),
            }

        def shown(index: int, key: str) -> dict[Any, Any]:
            session = service.session(key)
            one = session.variants[index]
            count = len(one.frames)
            return {
                chosen: index,
                slider: (service.photo(key).preview, one.picture),
                step: gr.update(maximum=max(count, 2), value=count, visible=count > 1),
                frame: one.frames[-1],
                map_: one.overlay,
                picture_file: gr.update(interactive=False, value=None),
                mask_file: gr.update(interactive=False, value=None),
            }

        def selected(event: gr.SelectData, request: gr.Request) -> dict[Any, Any]:
            return shown(event.index, request.session_hash)

        def frame_shown(number: int, index: int, request: gr.Request) -> Any:
            variants = service.session(request.session_hash).variants
            return variants[index].frames[int(number) - 1] if index < len(variants) else None

        def downloads(index: int, request: gr.Request) -> tuple[Any, Any]:
            key = request.session_hash
            if index >= len(service.session(key).variants):
                return gr.update(), gr.update()
            files = service.downloads(key, index)
            return tuple(gr.update(value=str(file), interactive=True) for file in files)

        def stopped(request: gr.Request) -> None:
            service.stop(request.session_hash)

        def closed(request: gr.Request) -> None:
            service.close(request.session_hash)

        views = [chosen, slider, step, frame, map_, picture_file, mask_file]
        files = [picture_file, mask_file]
        quick = {"queue": False, "show_progress": "hidden"}
        upload.upload(
            opened, upload, [painter, upload, status, results, live], show_progress="minimal"
        )
        mask.upload(masked, mask, painter, show_progress="minimal")
        fill.click(
            filled,
            [painted, weights, iterations, samples, seed, precision],
            [status, fill, stop, results, live, gallery, *views],
            js=TAKE_HOLE,
            show_progress="hidden",
        ).then(downloads, chosen, files, show_progress="hidden")
        stop.click(stopped, **quick)
        gallery.select(selected, None, views, show_progress="hidden").then(
            downloads, chosen, files, show_progress="hidden"
        )
        step.input(frame_shown, [step, chosen], frame, trigger_mode="always_last", **quick)
        page.unload(closed)
    return page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)


@contextmanager
def _told() -> Iterator[None]:
    """Show bad input on the page, in the words of the command line."""
    try:
        yield
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from error


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
        "<small>How certain the network is before the first pixels are kept, compared within each "
        "hole.</small>"
    )
