"""What the page asks of the server; knows nothing of how the page looks."""

import itertools
import json
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image

from sdm_lightning.app.filling import Frames, Stopped, overlay, reduced_result, run
from sdm_lightning.app.photo import OpenPhoto, data_url, open_photo, read_hole, shrink_mask
from sdm_lightning.arrays import BoolArray, UInt8Array
from sdm_lightning.errors import InputError
from sdm_lightning.inference.hub import WEIGHTS_NAME
from sdm_lightning.inference.inpainter import Inpainter, Precision
from sdm_lightning.inference.results import Inpainting
from sdm_lightning.inference.weights import find_weights
from sdm_lightning.inference.writing import file_options

MAX_SESSIONS = 4
MAX_SAMPLES = 6
MAX_ITERATIONS = 16
MAX_SEED = 2**32


@dataclass(frozen=True)
class Progress:
    """One iteration in one cut-out is done.

    Attributes:
        text: Words for the person who waits.
        share: Share of the whole run that is done, in [0, 1].
        picture: ``(h, w, 3)``, the reduced photo as far as it is filled.
    """

    text: str
    share: float
    picture: UInt8Array


@dataclass(frozen=True)
class ReducedSample:
    """One finished filling, reduced for the page.

    Attributes:
        seed: Seed that gives it again.
        picture: ``(h, w, 3)``.
        overlay: ``(h, w, 3)``, the uncertainty over it.
        frames: One picture per iteration; the last is ``picture``.
    """

    seed: int
    picture: UInt8Array
    overlay: UInt8Array
    frames: list[UInt8Array]


@dataclass
class Session:
    """What the server keeps for one open page, in memory until the page is closed.

    Attributes:
        folder: Place for the files that can be downloaded.
        turn: Number of the run that is asked for or going on; 0 without one.
    """

    folder: Path
    photo: OpenPhoto | None = None
    hole: BoolArray | None = None
    images: list[Image.Image] = field(default_factory=list)
    samples: list[ReducedSample] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    turn: int = 0

    @property
    def share(self) -> float:
        """Share of the picture that was filled, in [0, 1]."""
        return 0.0 if self.hole is None else float(self.hole.mean())

    def end_run(self) -> None:
        """End the run after the iteration that it is in, or before its first."""
        self.turn = 0
        self.stop.set()


class Service:
    """Photos that are open, and the weights that fill them.

    Args:
        weights: Names or files that the page offers; the first is the default.
        device: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``.
        max_pixels: Photos and masks with more are refused.
        folder: Place for files; everything under it is removed by its creator.

    Raises:
        InputError: If there are no such weights, or two have one name.
    """

    def __init__(
        self, weights: Sequence[str], device: str, max_pixels: int, folder: str | Path
    ) -> None:
        labels = [_label(name) for name in weights]
        self.weights = dict(zip(labels, weights, strict=True))
        if len(self.weights) < len(weights):
            raise InputError(
                f"weights {', '.join(weights)}: the page would call them {', '.join(labels)}; each "
                "needs a name of its own"
            )
        self.max_pixels = max_pixels
        self.folder = Path(folder)
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.lock = threading.Lock()
        self.turns = itertools.count(1)
        self.inpainter = lru_cache(maxsize=2)(
            lambda label: Inpainter.from_pretrained(self.weights[label], device)
        )
        self.inpainter(next(iter(self.weights)))  # a damaged file is reported before the page opens

    def session(self, key: str) -> Session:
        """Return the session of an open page; a fifth closes the least recently used."""
        with self.lock:
            if key not in self.sessions:
                folder = tempfile.mkdtemp(dir=self.folder, prefix="page-")
                self.sessions[key] = Session(Path(folder))
            self.sessions.move_to_end(key)
            session = self.sessions[key]
            forgotten = list(self.sessions)[:-MAX_SESSIONS]
        for old in forgotten:
            self.close(old)
        return session

    def close(self, key: str) -> None:
        """Forget everything about a page."""
        with self.lock:
            session = self.sessions.pop(key, None)
        if session is not None:
            session.end_run()
            shutil.rmtree(session.folder, ignore_errors=True)

    def open(self, key: str, path: Path) -> str:
        """Open an uploaded photo, and remove the uploaded file.

        Returns:
            What the painter loads: the reduced photo, and the hole if the photo has one.
        """
        try:
            photo = open_photo(path, self.max_pixels)
        finally:
            path.unlink(missing_ok=True)
        self.close(key)
        self.session(key).photo = photo
        given = photo.given_preview()
        return json.dumps(
            {
                "photo": data_url(photo.preview),
                "hole": None if given is None else data_url(given),
                "turn": next(self.turns),  # Gradio leaves out an equal value
            }
        )

    def give_mask(self, key: str, path: Path) -> str:
        """Take an uploaded mask over, and remove the uploaded file.

        Returns:
            What the painter loads.
        """
        try:
            photo = self.photo(key)
            photo.given_hole = read_hole(path, photo, self.max_pixels)
        finally:
            path.unlink(missing_ok=True)
        hole = data_url(shrink_mask(photo.given_hole, photo.preview))
        return json.dumps({"hole": hole, "turn": next(self.turns)})

    def ask(self, key: str) -> int:
        """Ask for a run, which may have to wait before it is started with ``fill``.

        Returns:
            Its number. It is no longer valid once the run was stopped, another run was asked for
            or another photo was opened.
        """
        session = self.session(key)
        session.turn = next(self.turns)
        return session.turn

    def fill(
        self,
        key: str,
        turn: int,
        painted: str,
        weights: str,
        num_iterations: int,
        num_samples: int,
        seed: int,
        precision: Precision,
    ) -> Iterator[Progress]:
        """Fill the painted hole; the result is then in ``session(key).samples``.

        Args:
            key: Key of the page.
            turn: What ``ask`` gave.
            painted: See ``OpenPhoto.hole``.
            weights: One of those that the page offers.
            num_iterations: 1 to ``MAX_ITERATIONS``.
            num_samples: 1 to ``MAX_SAMPLES``.
            seed: Seed of the first sample.
            precision: See ``Inpainter``.

        Yields:
            Before the first iteration, and after each in each cut-out.

        Raises:
            InputError: If an argument is out of range, or the hole cannot be used.
            Stopped: If ``turn`` is no longer valid.
        """
        session = self.session(key)
        if session.turn != turn:
            raise Stopped
        photo = self.photo(key)
        if weights not in self.weights:
            raise InputError(f"weights {weights}: choose one of {', '.join(self.weights)}")
        for name, value, limit in (
            ("iterations", num_iterations, MAX_ITERATIONS),
            ("samples", num_samples, MAX_SAMPLES),
        ):
            if not isinstance(value, int) or not 1 <= value <= limit:
                raise InputError(f"{name} is {value}; choose 1 to {limit}")
        if not isinstance(seed, int) or not 0 <= seed < MAX_SEED:
            given = "empty" if seed is None else seed
            raise InputError(f"seed is {given}; choose a whole number from 0 to {MAX_SEED - 1}")
        hole = photo.hole(painted)
        session.images, session.samples, session.stop = [], [], threading.Event()
        frames = [Frames(photo.preview, hole, num_iterations) for _ in range(num_samples)]
        events = run(
            self.inpainter(weights), photo.picture, hole, session.stop,
            num_iterations=num_iterations, num_samples=num_samples, seed=seed,
            precision=precision,
        )  # fmt: skip
        yield Progress("Starting", 0.0, frames[0].latest.copy())
        with closing(events):
            for event in events:
                if isinstance(event, Inpainting):
                    self._keep(session, event, frames)
                if session.turn != turn:
                    raise Stopped
                if isinstance(event, Inpainting):
                    return
                frames[event.sample].put(event)
                before = event.sample * event.num_cut_outs + event.cut_out
                done = before * event.num_iterations + event.iteration
                words = f"Iteration {event.iteration} of {event.num_iterations}"
                if event.num_cut_outs > 1:
                    words += f", cut-out {event.cut_out + 1} of {event.num_cut_outs}"
                if num_samples > 1:
                    words += f", sample {event.sample + 1} of {num_samples}"
                share = done / (event.num_iterations * event.num_cut_outs * num_samples)
                yield Progress(words, share, frames[event.sample].latest.copy())

    def stop(self, key: str) -> None:
        """End the run of a page, whether it waits or goes on."""
        if key in self.sessions:
            self.sessions[key].end_run()

    def downloads(self, key: str, sample: int) -> tuple[Path, Path]:
        """Write a sample at full size and its mask (white = known) as PNG files.

        Returns:
            Their paths.
        """
        photo, session = self.photo(key), self.session(key)
        if session.hole is None:
            raise InputError("nothing is filled yet")
        image = session.images[sample]
        filled = session.folder / f"{photo.name}-inpainted.png"
        mask = session.folder / f"{photo.name}-mask.png"
        # The lowest level: twelve megapixels take one second then, and not five.
        image.save(filled, "PNG", compress_level=1, **file_options(image))
        Image.fromarray(~session.hole).convert("L").save(mask, "PNG")
        return filled, mask

    def photo(self, key: str) -> OpenPhoto:
        """Return the photo that is open in a page.

        Raises:
            InputError: If none is.
        """
        photo = self.session(key).photo
        if photo is None:
            raise InputError(
                f"no photo is open (the server keeps those of {MAX_SESSIONS} pages): open one"
            )
        return photo

    @staticmethod
    def _keep(session: Session, result: Inpainting, frames: list[Frames]) -> None:
        """Take the result over, and let go of everything else at full size."""
        session.hole = ~result.mask
        for sample, made in zip(result.samples, frames, strict=True):
            reduced = reduced_result(sample.picture, sample.array)
            uncertain = overlay(reduced, sample.uncertainty, made.small_hole)
            pictures = [*made.pictures[:-1], reduced]
            session.images.append(sample.image)
            session.samples.append(ReducedSample(sample.seed, reduced, uncertain, pictures))


def _label(weights: str) -> str:
    """Return what the page calls weights: a file's stem, if that says which weights they are."""
    path = find_weights(weights)
    if path.suffix == ".safetensors" and path.name != WEIGHTS_NAME:
        return path.stem
    return str(Path(*Path(weights).parts[-3:]))
