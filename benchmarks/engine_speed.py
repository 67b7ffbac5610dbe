"""Time and difference of onnxruntime and onnxruntime-web against PyTorch, one thread each.

    sdm export photos-128 examples/browser/model.onnx --half
    python -m benchmarks.engine_speed               # needs onnxruntime; Chromium for the browser

Each row is the least of ``--runs`` runs, the three engines in turn on the same inputs.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from sdm_lightning.inference import load_generator
from sdm_lightning.inference.graph import INPUTS, InpaintingGraph
from sdm_lightning.inference.locating import DEFAULT_WEIGHTS
from tests.examples.chromium import RUN, chromium, served

PAGE = Path(__file__).parents[1] / "examples" / "browser"
Engine = Callable[..., tuple[np.ndarray, float]]


def eager(graph: InpaintingGraph) -> Engine:
    def run(*inputs: torch.Tensor) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        with torch.inference_mode():
            out = graph(*inputs)[0]
        return out.numpy(), (time.perf_counter() - start) * 1000

    return run


def native(session: onnxruntime.InferenceSession) -> Engine:
    def run(*inputs: torch.Tensor) -> tuple[np.ndarray, float]:
        feed = {name: tensor.numpy() for name, tensor in zip(INPUTS, inputs, strict=True)}
        start = time.perf_counter()
        out = session.run(["completed"], feed)[0]
        return out, (time.perf_counter() - start) * 1000

    return run


def web(stack: ExitStack) -> Engine:
    driver = stack.enter_context(chromium())
    driver.get(stack.enter_context(served(PAGE)))
    while not driver.execute_script("return Boolean(window.model)"):
        time.sleep(0.2)

    def run(*inputs: torch.Tensor) -> tuple[np.ndarray, float]:
        image, mask, latent, noise = (tensor.flatten().tolist() for tensor in inputs)
        height, width = inputs[0].shape[-2:]
        answer = driver.execute_async_script(RUN, image, mask, width, height, latent, noise)
        return np.float32(answer[0]).reshape(inputs[0].shape), answer[1]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--runs", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(PAGE / "model.onnx"), options)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["sdm_lightning"])
    generator, info = load_generator(args.weights)
    if info.sha256 != facts["weights_sha256"]:
        raise SystemExit(f"{PAGE / 'model.onnx'} was not exported from {args.weights}")
    graph = InpaintingGraph(
        generator.half().float(), info.build_diffusion(), facts["num_iterations"]
    )
    with ExitStack() as stack:
        engines = {"eager": eager(graph), "onnxruntime": native(session), "web": web(stack)}
        print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, T = "
              f"{graph.num_iterations}")  # fmt: skip
        for size in args.sizes:
            inputs = graph.example(size, size, seed=1)
            expected = graph(*inputs)[0].detach().numpy()
            times: dict[str, list[float]] = {name: [] for name in engines}
            worst = dict.fromkeys(engines, 0.0)
            for _ in range(args.runs):
                for name, run in engines.items():
                    out, milliseconds = run(*inputs)
                    times[name].append(milliseconds)
                    worst[name] = max(worst[name], float(np.abs(out - expected).max()))
            for name in engines:
                print(f"{size}x{size} {name:<12} {min(times[name]):8.1f} ms  {worst[name]:.1e}")


if __name__ == "__main__":
    main()
