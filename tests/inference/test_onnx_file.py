import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sdm_lightning.inference import load_generator
from sdm_lightning.inference.export import InpaintingGraph, export_model
from sdm_lightning.inference.graph import INPUTS
from sdm_lightning.inference.onnx_file import SMALLEST_STORED_HALF

pytestmark = pytest.mark.timeout(600)  # the export, before the first test


def run(path: Path, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {name: tensor.numpy() for name, tensor in zip(INPUTS, inputs, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, feed)]


def loop(weights: Path, num_iterations: int | None = None, half: bool = False) -> InpaintingGraph:
    generator, info = load_generator(weights)
    generator = generator.half().float() if half else generator
    return InpaintingGraph(generator, info.build_diffusion(), num_iterations)


@pytest.mark.parametrize(
    ("height", "width", "batch"), [(16, 16, 1), (2, 2, 1), (10, 34, 3), (48, 20, 2)]
)
def test_any_size_and_batch_agree_with_eager(
    smallest_weights: Path, onnx_model: Path, height: int, width: int, batch: int
) -> None:
    graph = loop(smallest_weights, half=True)
    image, mask, latent, noise = graph.example(height, width, seed=3, batch=batch)
    draw = torch.Generator().manual_seed(height)
    mask = (torch.rand(mask.shape, generator=draw) > 0.6).float()
    with torch.no_grad():
        expected = graph(image, mask, latent, noise)
    found = run(onnx_model, (image, mask, latent, noise))
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert torch.equal(torch.where(mask.bool(), found[0], image), image)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_hole_and_no_hole(smallest_weights: Path, onnx_model: Path, share: float) -> None:
    graph = loop(smallest_weights, half=True)
    image, mask, latent, noise = graph.example(16, 16, seed=5)
    mask = torch.full_like(mask, share)
    with torch.no_grad():
        expected = graph(image, mask, latent, noise)
    found = run(onnx_model, (image, mask, latent, noise))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_the_file_says_what_it_is_and_nothing_of_this_machine(
    smallest_weights: Path, onnx_model: Path
) -> None:
    onnx: Any = importlib.import_module("onnx")
    model = onnx.load(str(onnx_model))
    facts = json.loads({p.key: p.value for p in model.metadata_props}["sdm_lightning"])
    assert facts["stride"] == 2
    assert (facts["latent_dim"], facts["num_iterations"], facts["resolution"]) == (8, 2, 16)
    assert facts["weights_sha256"] == load_generator(smallest_weights)[1].sha256
    assert str(Path(__file__).parents[2]).encode() not in onnx_model.read_bytes()
    # OpenVINO computes convolutions of each channel wrongly whose filter is not constant.
    kinds = {output: node.op_type for node in model.graph.node for output in node.output}
    stored = {tensor.name for tensor in model.graph.initializer}
    filters = [
        node.input[1]
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "group" and attribute.i > 1
    ]
    assert filters
    assert all(name in stored or kinds[name] in ("Identity", "Cast") for name in filters)
    large = [t for t in model.graph.initializer if math.prod(t.dims) >= SMALLEST_STORED_HALF]
    assert any("decoder" in tensor.name for tensor in large)
    assert {tensor.data_type for tensor in large} == {onnx.TensorProto.FLOAT16}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("num_iterations", [1, 3, 4])
def test_other_numbers_of_iterations(
    smallest_weights: Path, onnx_model: Path, tmp_path: Path, num_iterations: int
) -> None:
    path = tmp_path / "model.onnx"
    export_model(str(smallest_weights), str(path), num_iterations=num_iterations)
    graph = loop(smallest_weights, num_iterations)
    inputs = graph.example(12, 20, seed=7, batch=2)
    with torch.no_grad():
        expected = graph(*inputs)
    for one, other in zip(run(path, inputs), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_one_size(smallest_weights: Path, onnx_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_model(str(smallest_weights), str(path), height=16, width=24)
    inputs = loop(smallest_weights).example(16, 24, seed=7)
    with torch.no_grad():
        expected = loop(smallest_weights)(*inputs)[0]
    torch.testing.assert_close(run(path, inputs)[0], expected, rtol=0, atol=1e-4)
