"""The command ``sdm export``: weights to share, or the whole loop as one module."""

import warnings
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically
from sdm_lightning.inference.certainty import with_calibration
from sdm_lightning.inference.discriminators import load_discriminator
from sdm_lightning.inference.graph import OUTPUTS, InpaintingGraph
from sdm_lightning.inference.onnx_file import refuse_missing_packages, refuse_old_torch, write_onnx
from sdm_lightning.inference.weights import Parameters, load_generator, save_weights

SUFFIXES = (".safetensors", ".pt2", ".onnx")


def export_model(
    weights: str,
    output: str,
    height: int | None = None,
    width: int | None = None,
    num_iterations: int | None = None,
    parameters: Parameters = "ema",
    half: bool = False,
    licence: str | None = None,
    data: str | None = None,
    discriminator: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a trained model as safe weights, torch.export program or ONNX.

    safetensors holds the averaged weights with their configuration and a checksum beside; it runs
    no code when loaded. The other formats hold all iterations as one graph: inputs image, mask
    (1 = known), latent and noise; outputs completed and uncertainty. An ONNX file takes pictures of
    any size and number unless --height is given; a torch.export program is for one picture of one
    size. After writing, the file is loaded again, run, and compared with the original.

    Args:
        weights: Name of packaged weights, .safetensors file, .ckpt of sdm fit, or runs/NAME for its
            newest checkpoint.
        output: File to write; its suffix is its format: .safetensors, .pt2 (torch.export) or .onnx.
        height: Height of the images the graph accepts; default: the training resolution, and any
            for ONNX.
        width: Width of the images the graph accepts; default: as height.
        num_iterations: Iterations in the graph; default: the number stored with the weights.
        parameters: Weights of a .ckpt: the moving average (ema) or the raw ones.
        half: Store the weights of safetensors or ONNX as float16; they are used as float32.
        licence: Licence of the weights, kept in the file.
        data: What they were trained on, kept in the file.
        discriminator: Keep the discriminator too, to continue training.
        overwrite: Replace an existing file.

    Raises:
        InputError: If an option or the weights cannot be used, or the graph differs from the
            original.
    """
    path = Path(output)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: its suffix names no format; end it in {', '.join(SUFFIXES)}")
    if path.suffix == ".onnx":
        refuse_missing_packages()
    for name, value in (("height", height), ("width", width), ("num_iterations", num_iterations)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; --overwrite true replaces it")
    if discriminator and path.suffix != ".safetensors":
        raise InputError(f"--discriminator is for .safetensors, not for {path.suffix}")
    if (licence or data) and path.suffix not in (".safetensors", ".onnx"):
        raise InputError(f"--licence and --data are for .safetensors and .onnx, not {path.suffix}")
    generator, info = load_generator(weights, parameters=parameters)
    info = replace(info, licence=licence or info.licence, data=data or info.data)
    if path.suffix == ".safetensors":
        other: dict[str, Any] = {}
        if discriminator:
            found, config = load_discriminator(weights)
            if found is None:
                raise InputError(f"{weights}: holds no discriminator")
            other = {"discriminator_state": found, "discriminator_config": config}
        state = generator.state_dict()
        save_weights(path, with_calibration(info), state, half=half, **other)
        _compare_stored(path, state)
        return
    if half:
        if path.suffix != ".onnx":
            raise InputError(f"--half is for .safetensors and .onnx, not for {path.suffix}")
        generator.half().float()  # so that the comparison below is with what is stored
    graph = InpaintingGraph(generator, info.build_diffusion(), num_iterations)
    iterations = f"{graph.num_iterations} iterations"
    print(f"{path}: building a graph of {iterations}; this can take minutes ...", flush=True)
    stride = int(generator.stride)  # type: ignore[arg-type]
    if path.suffix == ".onnx" and height is None and width is None:
        refuse_old_torch()
        run = write_onnx(graph, info, path, half=half)
        side = info.resolution or 4 * stride
        _compare(graph, run, graph.example(side, side, seed=1), path)
        _compare(graph, run, graph.example(side + stride, 2 * side, seed=2, batch=2), path)
        return
    size = height or info.resolution
    if size is None:
        raise InputError("the weights do not state their resolution; give --height and --width")
    for name, side in (("height", size), ("width", width or size)):
        if side % stride:
            raise InputError(f"{name} {side} is not divisible by the generator's stride {stride}")
    example = graph.example(size, width or size)
    if path.suffix == ".onnx":
        run = write_onnx(graph, info, path, (size, width or size), half)
    else:
        run = _write_program(graph, example, path)
    # Compared on other inputs than those it was traced with.
    _compare(graph, run, graph.example(size, width or size, seed=1), path)


def _compare_stored(path: Path, state: dict[str, Tensor]) -> None:
    again, found = load_generator(path)
    others = again.state_dict()
    # Of each tensor's own largest value: a mapping network's weights are of the order of 100.
    difference = max(
        float((tensor - others[name]).abs().max() / tensor.abs().max().clamp_min(1e-12))
        for name, tensor in state.items()
        if tensor.is_floating_point() and tensor.numel()
    )
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, sha256 {found.sha256[:16]}...")
    print(f"loaded again: largest relative difference of a weight {difference:.2e}")


def _write_program(graph: InpaintingGraph, example: tuple[Tensor, ...], path: Path) -> Any:
    """Write a torch.export program; return it loaded again."""
    buffer = BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # Shape checks become constants of the trace, as intended: one size per file.
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(graph, example, strict=False), buffer)
        write_atomically(path, buffer.getvalue())
        return torch.export.load(str(path)).module()


def _compare(graph: InpaintingGraph, run: Any, inputs: tuple[Tensor, ...], path: Path) -> None:
    batch, _, height, width = inputs[0].shape
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {graph.num_iterations} iterations, {batch} x "
        f"{width}x{height} pixels, noise {tuple(inputs[3].shape)}"
    )
    with torch.no_grad():
        expected, found = graph(*inputs), run(*inputs)
    for name, one, other in zip(OUTPUTS, expected, found, strict=True):
        difference = float((one - other).abs().max())
        print(f"loaded again and run: largest difference of {name} {difference:.2e}")
        if not difference < 1e-2:
            raise InputError(f"{path}: {name} differs from the original by {difference:.2e}")
