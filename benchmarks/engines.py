"""The packaged weights' whole loop in other engines beside eager PyTorch, one thread each.

ONNX Runtime, OpenVINO (``pip install openvino``) and, where Chromium and ``npm install`` in
``examples/browser`` have put it there, onnxruntime-web: those that are installed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Line, Settings, compared, figure, interleaved
from sdm_lightning.inference import load_generator
from sdm_lightning.inference.export import export_model
from sdm_lightning.inference.graph import INPUTS, InpaintingGraph
from sdm_lightning.inference.locating import DEFAULT_WEIGHTS

PAGE = Path(__file__).parents[1] / "examples" / "browser"
EAGER = "eager PyTorch"
Engine = Callable[..., np.ndarray]
"""Takes the graph's inputs, returns the completed picture."""


def run(settings: Settings) -> Iterator[Line]:
    """Fill one picture of each size with every engine, in turns, from the same noise."""
    if settings.device.type != "cpu":
        raise ValueError("engines are compared on a processor: --device cpu")
    model, iterations = settings.folder / "model.onnx", 1 if settings.quick else None
    with contextlib.redirect_stdout(sys.stderr):  # stdout is the table's
        export_model(DEFAULT_WEIGHTS, str(model), num_iterations=iterations, half=True)
    generator, info = load_generator(DEFAULT_WEIGHTS)
    # The weights that are in the file.
    graph = InpaintingGraph(generator.half().float(), info.build_diffusion(), iterations)
    engines = {EAGER: eager(graph)} | installed(model)
    what = f"{DEFAULT_WEIGHTS}, T = {graph.num_iterations}"
    with contextlib.ExitStack() as stack:
        page = stack.enter_context(browser(model)) if has_browser() else None
        for size in settings.sizes:
            inputs = graph.example(size, size, seed=1)
            columns = interleaved(
                [functools.partial(_milliseconds, settings, e, inputs) for e in engines.values()],
                settings.rounds,
            )
            expected = engines[EAGER](*inputs)
            where = f"{size}x{size}, {what}"
            for name, column in list(zip(engines, columns, strict=True))[1:]:
                yield compared("engines", f"{name}, {where}", "ms", column, columns[0], EAGER)
                yield _difference(name, where, engines[name](*inputs), expected)
            if page is not None:
                name, answers = "onnxruntime-web", [page(*inputs) for _ in range(settings.rounds)]
                best = min(milliseconds for _, milliseconds in answers)
                yield figure("engines", f"{name}, {where}, the best run", best, "ms, wall clock")
                yield _difference(name, where, answers[0][0], expected)


def _milliseconds(settings: Settings, engine: Engine, inputs: tuple[torch.Tensor, ...]) -> float:
    return 1e3 * settings.seconds(lambda: engine(*inputs))


def _difference(name: str, where: str, found: np.ndarray, expected: np.ndarray) -> Line:
    largest = float(np.abs(found - expected).max())
    name = f"{name}, {where}, largest difference from {EAGER}"
    return figure("engines", name, largest, "of values in [-1, 1]")


def eager(graph: InpaintingGraph) -> Engine:
    """Run the graph itself."""

    def run(*inputs: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return graph(*inputs)[0].numpy()

    return run


def installed(model: Path) -> dict[str, Engine]:
    """Load the model into the engines that are installed."""
    kinds = {
        "ONNX Runtime": (onnx_runtime, "onnxruntime"),
        "OpenVINO": (openvino, "openvino"),
    }
    return {
        name: load(model)
        for name, (load, *packages) in kinds.items()
        if all(importlib.util.find_spec(package) is not None for package in packages)
    }


def _arrays(inputs: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in zip(INPUTS, inputs, strict=True)}


def onnx_runtime(model: Path) -> Engine:
    """Load the model into ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options)
    return lambda *inputs: session.run(["completed"], _arrays(inputs))[0]


def openvino(model: Path) -> Engine:
    """Load the model into OpenVINO."""
    from openvino import Core

    # float32 as the others compute; its default is bfloat16 where the processor has that.
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = Core().compile_model(str(model), "CPU", options)
    return lambda *inputs: compiled(_arrays(inputs))["completed"]


def has_browser() -> bool:
    """Tell whether Chromium and onnxruntime-web are here."""
    from tests.examples.chromium import BROWSER, DRIVER

    return bool(BROWSER and DRIVER and (PAGE / "node_modules" / "onnxruntime-web").is_dir())


@contextlib.contextmanager
def browser(model: Path) -> Iterator[Callable[..., tuple[np.ndarray, float]]]:
    """Load the model into the page of ``examples/browser``; yields what fills and times itself."""
    from tests.examples.chromium import RUN, chromium, served

    folder = model.parent / "page"
    folder.mkdir()
    for path in (*PAGE.iterdir(), model):
        if path == model or path.name != model.name:
            (folder / path.name).symlink_to(path)
    with chromium() as driver, served(folder) as address:
        driver.get(address)
        while not driver.execute_script("return Boolean(window.model)"):
            time.sleep(0.2)

        def run(*inputs: torch.Tensor) -> tuple[np.ndarray, float]:
            image, mask, latent, noise = (tensor.flatten().tolist() for tensor in inputs)
            height, width = inputs[0].shape[-2:]
            answer: Any = driver.execute_async_script(
                RUN, image, mask, width, height, latent, noise
            )
            return np.float32(answer[0]).reshape(inputs[0].shape), answer[1]

        yield run
