"""The loop as an ONNX file that needs neither PyTorch nor Python to run."""

import importlib
import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically
from sdm_lightning.inference.graph import INPUTS, OUTPUTS, InpaintingGraph
from sdm_lightning.inference.weights import WeightsInfo

SMALLEST_STORED_HALF = 256
"""Elements; smaller tensors (biases, gains, constants of the loop) stay float32."""

TORCH_WITH_FREE_SIZES = "2.10"
"""Older ones refuse free sizes (2.6), or write a file that runs at one size only (2.8, 2.9)."""


def refuse_old_torch() -> None:
    """Check that this PyTorch can export with batch, height and width free.

    Raises:
        InputError: If not, with what to do instead.
    """
    if TorchVersion(torch.__version__) < TORCH_WITH_FREE_SIZES:
        raise InputError(
            f"ONNX with free sizes needs torch {TORCH_WITH_FREE_SIZES} or newer, this is "
            f"{torch.__version__}; give --height for a file of one size"
        )


def refuse_missing_packages() -> None:
    """Check that the packages that write ONNX and run it for the comparison are installed.

    Raises:
        InputError: If not, with the command that installs them.
    """
    needed = ("onnx", "onnxscript", "onnxruntime")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"an .onnx file needs {', '.join(missing)}: pip install '.[onnx]' in a checkout of "
            "sdm_lightning"
        )


def write_onnx(
    graph: InpaintingGraph,
    info: WeightsInfo,
    path: Path,
    size: tuple[int, int] | None = None,
    half: bool = False,
) -> Callable[..., list[Tensor]]:
    """Write the loop as ONNX, its facts in the file's metadata under ``sdm_lightning``.

    Args:
        graph: The loop; its number of iterations is fixed in the file.
        info: Where the weights come from.
        path: File to write.
        size: Height and width of its pictures, one picture a run; None leaves batch, height and
            width free, both sides multiples of the generator's stride.
        half: Store the weights, rounded to float16 before, in that type; they are widened when the
            file is loaded, and everything is computed in float32.

    Returns:
        A function that runs the file in onnxruntime.

    Raises:
        InputError: If a weight does not fit into float16.
    """
    stride = int(graph.generator.stride)  # type: ignore[arg-type]
    # Traced with sizes that differ from each other and from 1, so that none passes for a constant.
    example = graph.example(*size) if size else graph.example(2 * stride, 3 * stride, batch=2)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            verbose=False,
            # Folding constants makes products of weights and gains, which no longer are float16;
            # engines do it themselves at loading.
            optimize=not half,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=None if size else _free_shapes(stride),
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort()},
        )
    assert program is not None
    model = program.model_proto
    if half:
        _store_half(model, path)
    for node in model.graph.node:  # stack traces of the export, a quarter of the file
        node.ClearField("metadata_props")
    facts = {
        "stride": stride,
        "latent_dim": int(graph.generator.latent_dim),  # type: ignore[arg-type]
        "num_iterations": graph.num_iterations,
        "resolution": info.resolution,
        "licence": info.licence,
        "data": info.data,
        "weights_sha256": info.sha256,
    }
    model.metadata_props.add(key="sdm_lightning", value=json.dumps(facts, sort_keys=True))
    write_atomically(path, model.SerializeToString())
    return _runner(path)


def _free_shapes(stride: int) -> tuple[dict[int, Any], ...]:
    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    planes = {0: batch, 2: stride * rows, 3: stride * columns}
    return planes, planes, {0: batch}, {0: batch, 3: stride * rows, 4: stride * columns}


def _runner(path: Path) -> Callable[..., list[Tensor]]:
    # By name: an optional package that type checkers need not have.
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {item.name for item in session.get_inputs()}

    def run(*tensors: Tensor) -> list[Tensor]:
        pairs = zip(INPUTS, tensors, strict=True)
        feed = {name: np.asarray(tensor) for name, tensor in pairs if name in names}
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return run


def _store_half(model: Any, path: Path) -> None:
    """Replace large float32 tensors by float16 ones and a Cast, which engines fold at loading.

    Only storage: few CPU and WebAssembly kernels compute in float16, all engines can cast.
    """
    onnx = importlib.import_module("onnx")
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < SMALLEST_STORED_HALF:
            continue
        with np.errstate(over="ignore"):
            small = values.astype(np.float16)
        if not np.isfinite(small).all():
            raise InputError(f"{path}: {tensor.name} does not fit into float16; leave out --half")
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(small, f"{name}.float16"))
        casts.append(
            onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]  # a node comes behind those whose output it takes
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _stable_sort() -> Callable[..., Any]:
    """Translate a stable sort to ONNX, which PyTorch does not do by itself.

    TopK over the whole axis: its definition puts the lower index first among equal values.
    """
    op = importlib.import_module("onnxscript").opset18

    def sort(self: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
        length = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(self, length, axis=dim, largest=int(descending), sorted=1)

    return sort
