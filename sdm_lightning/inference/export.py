"""The verb ``sdm export``: weights to share, or the whole loop as one module."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically
from sdm_lightning.inference.weights import (
    Parameters,
    WeightsInfo,
    load_discriminator_state,
    load_generator,
    save_weights,
)

Format = Literal["safetensors", "torchscript", "torch-export", "onnx"]
SUFFIXES = {
    "safetensors": ".safetensors",
    "torchscript": ".pt",
    "torch-export": ".pt2",
    "onnx": ".onnx",
}
INPUTS = ("image", "mask", "latent", "noise")
OUTPUTS = ("completed", "uncertainty")


class GivenNoise(TorchFunctionMode):
    """Lets the loop take its noise from a tensor instead of drawing it.

    An exported graph has no random generator that would agree between runtimes; as an input the
    noise is the caller's, and the loop's own code stays the one loop.

    Args:
        noise: ``(B, T - 1, 3, H, W)``, one slice per call.
    """

    def __init__(self, noise: Tensor) -> None:
        super().__init__()
        self._slices = iter(noise.unbind(1))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace ``randn_like`` and pass everything else through."""
        if func is torch.randn_like:
            return next(self._slices)
        return func(*args, **(kwargs or {}))


class InpaintingGraph(nn.Module):
    """All T iterations as one module without randomness of its own.

    Args:
        generator: The network.
        diffusion: The loop, the same that trains.
        num_iterations: T; fixed in the exported graph.
    """

    def __init__(
        self, generator: nn.Module, diffusion: SpatialDiffusion, num_iterations: int | None = None
    ) -> None:
        super().__init__()
        self.generator = generator
        self.diffusion = diffusion
        self.num_iterations = num_iterations or diffusion.num_iterations

    def forward(
        self, image: Tensor, mask: Tensor, latent: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill the hole.

        Args:
            image: ``(B, 3, H, W)`` in [-1, 1]; what it holds in the hole is never read.
            mask: ``(B, 1, H, W)``, 1 = known, 0 = hole.
            latent: ``(B, latent_dim)``, standard normal: which of many fillings.
            noise: ``(B, T - 1, 3, H, W)``, standard normal: z of Eq. 5; zeros leave it out.

        Returns:
            Completed image ``(B, 3, H, W)`` and the first iteration's uncertainty
            ``(B, 1, H, W)`` in [0, 1].
        """
        styles = self.generator.mapping(latent)  # type: ignore[operator]

        def network(inputs: Tensor) -> tuple[Tensor, Tensor]:
            mean, log_variance = self.generator(inputs, styles)
            return mean, log_variance

        with GivenNoise(noise):
            steps = list(
                self.diffusion.iterate(network, image, mask, num_iterations=self.num_iterations)
            )
        return steps[-1].completed, steps[0].uncertainty

    def example(self, height: int, width: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Build inputs of the right shapes with a hole in the middle, for tracing and checking."""
        source = torch.Generator().manual_seed(seed)
        image = torch.rand(1, 3, height, width, generator=source) * 2 - 1
        mask = torch.ones(1, 1, height, width)
        mask[:, :, height // 4 : height * 3 // 4, width // 4 : width * 5 // 8] = 0
        latent = torch.randn(1, int(self.generator.latent_dim), generator=source)  # type: ignore[arg-type]
        count = max(self.num_iterations - 1, 1)
        noise = torch.randn(1, count, 3, height, width, generator=source)
        return image, mask, latent, noise


def export_model(
    weights: str,
    output: str,
    format: Literal["auto", "safetensors", "torchscript", "torch-export", "onnx"] = "auto",
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
    """Write a trained model as safe weights, TorchScript, torch.export program or ONNX.

    safetensors holds the averaged weights with their configuration and a checksum beside; it runs
    no code when loaded. The other formats hold all iterations as one graph for pictures of one
    size: inputs image, mask (1 = known), latent and noise; outputs completed and uncertainty. After
    writing, the file is loaded again, run, and compared with the original.

    Args:
        weights: Name of bundled weights, .safetensors file, .ckpt of sdm fit, or runs/NAME for its
            newest checkpoint.
        output: File to write.
        format: By default from the suffix: .safetensors, .pt (torchscript), .pt2 (torch-export),
            .onnx.
        height: Of the graph's pictures; default: the training resolution.
        width: Of the graph's pictures; default: as height.
        num_iterations: Iterations in the graph; default: as the weights were made for.
        parameters: Of a .ckpt: the moving average (ema) or the raw weights.
        half: Store safetensors as float16.
        licence: Licence of the weights, kept in the file.
        data: What they were trained on, kept in the file.
        discriminator: Keep the discriminator too, to continue training.
        overwrite: Replace an existing file.
    """
    path = Path(output)
    chosen = _format(path, format)
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; --overwrite true replaces it")
    generator, info = load_generator(weights, parameters=parameters)
    if chosen == "safetensors":
        other = load_discriminator_state(weights) if discriminator else None
        if discriminator and other is None:
            raise InputError(f"{weights}: holds no discriminator")
        _export_safetensors(path, generator, info, half, licence, data, other)
        return
    graph = InpaintingGraph(generator, info.build_diffusion(), num_iterations)
    size = height or info.resolution
    if size is None:
        raise InputError("the weights do not state their resolution; give --height and --width")
    stride = int(generator.stride)  # type: ignore[arg-type]
    for name, side in (("height", size), ("width", width or size)):
        if side % stride:
            raise InputError(f"{name} {side} is not divisible by the generator's stride {stride}")
    example = graph.example(size, width or size)
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {"torchscript": _torchscript, "torch-export": _torch_export, "onnx": _onnx}[chosen](
        graph, example, path
    )
    # Compared on other inputs than those it was traced with.
    _compare(graph, run, graph.example(size, width or size, seed=1), path)


def _format(path: Path, chosen: str) -> str:
    found = chosen
    if chosen == "auto":
        matches = [name for name, suffix in SUFFIXES.items() if path.suffix == suffix]
        if not matches:
            raise InputError(
                f"{path}: its suffix names no format; end it in {', '.join(SUFFIXES.values())} or "
                "give --format"
            )
        found = matches[0]
    if found == "safetensors" and path.suffix != ".safetensors":
        raise InputError(f"{path}: weights files end in .safetensors")
    if found == "onnx":
        missing = [
            name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None
        ]
        if missing:
            raise InputError(
                f"--format onnx needs the package {' and '.join(missing)}: "
                f"pip install {' '.join(missing)} onnxruntime"
            )
    return found


def _export_safetensors(
    path: Path,
    generator: nn.Module,
    info: WeightsInfo,
    half: bool,
    licence: str | None,
    data: str | None,
    discriminator: Mapping[str, Tensor] | None,
) -> None:
    state = generator.state_dict()
    save_weights(
        path,
        info.generator,
        state,
        info.diffusion,
        resolution=info.resolution,
        images_seen=info.images_seen,
        parameters="raw" if info.parameters == "raw" else "ema",
        licence=licence or info.licence,
        data=data or info.data,
        half=half,
        extra=info.extra,
        discriminator_state=discriminator,
    )
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


def _torchscript(graph: InpaintingGraph, example: tuple[Tensor, ...], path: Path) -> Any:
    with torch.inference_mode(), warnings.catch_warnings():
        # Shape checks become constants of the trace, as intended: one size per file.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(graph, example, check_trace=False)
        buffer = BytesIO()
        torch.jit.save(traced, buffer)
        write_atomically(path, buffer.getvalue())
        return torch.jit.load(str(path))


def _torch_export(graph: InpaintingGraph, example: tuple[Tensor, ...], path: Path) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, example, strict=False)
        buffer = BytesIO()
        torch.export.save(program, buffer)
        write_atomically(path, buffer.getvalue())
        return torch.export.load(str(path)).module()


def _onnx(graph: InpaintingGraph, example: tuple[Tensor, ...], path: Path) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort()},
        )
    assert program is not None
    write_atomically(path, program.model_proto.SerializeToString())
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    # By name: an optional package that type checkers need not have.
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {item.name for item in session.get_inputs()}

    def run(*tensors: Tensor) -> list[Tensor]:
        feed = {
            name: np.asarray(tensor)
            for name, tensor in zip(INPUTS, tensors, strict=True)
            if name in names
        }
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return run


def _stable_sort() -> Callable[..., Any]:
    """Translate a stable sort to ONNX, which PyTorch does not do by itself.

    TopK over the whole axis: its definition puts the lower index first among equal values.
    """
    op = importlib.import_module("onnxscript").opset18

    def sort(self: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
        length = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(self, length, axis=dim, largest=int(descending), sorted=1)

    return sort


def _compare(graph: InpaintingGraph, run: Any, inputs: tuple[Tensor, ...], path: Path) -> None:
    size = f"{inputs[0].shape[-1]}x{inputs[0].shape[-2]}"
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {graph.num_iterations} iterations, {size} "
        f"pixels, noise {tuple(inputs[3].shape)}"
    )
    if run is None:
        print("not compared with the original: onnxruntime is not installed")
        return
    with torch.no_grad():
        expected, found = graph(*inputs), run(*inputs)
    for name, one, other in zip(OUTPUTS, expected, found, strict=True):
        difference = float((one - other).abs().max())
        print(f"loaded again and run: largest difference of {name} {difference:.2e}")
        if not difference < 1e-2:
            raise InputError(f"{path}: {name} differs from the original by {difference:.2e}")
