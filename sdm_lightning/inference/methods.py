"""Other methods: classical ones, your own function, TorchScript.

Every method is wrapped in one form, ``method(image, known) -> result`` on uint8 arrays, so that all
of Table 3's systems are run and scored alike: ``sdm baseline`` writes a folder of results, and
``sdm evaluate`` scores any folder.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from torch import Tensor

from sdm_lightning.arrays import BoolArray, UInt8Array
from sdm_lightning.devices import choose_device
from sdm_lightning.errors import InputError
from sdm_lightning.inference.regions import pad_to_stride

Method: TypeAlias = Callable[[UInt8Array, BoolArray], UInt8Array]
"""Takes ``(H, W, 3)`` uint8 and ``(H, W)`` bool, True = known; returns ``(H, W, 3)`` uint8."""

RADIUS = 3.0
"""Radius of the surroundings that OpenCV's methods look at, in pixels."""

MULTIPLE = 8
"""Sides of what a TorchScript network is fed are multiples of it."""


def mean_fill(image: UInt8Array, known: BoolArray) -> UInt8Array:
    """Fill the hole with the mean colour of the known pixels.

    Args:
        image: ``(H, W, 3)`` uint8.
        known: ``(H, W)`` bool; if nothing is known, the hole becomes middle grey.
    """
    colour = image[known].mean(axis=0) if known.any() else np.full(3, 127.5)
    result = image.copy()
    result[~known] = np.rint(colour).astype(np.uint8)
    return result


def telea(image: UInt8Array, known: BoolArray) -> UInt8Array:
    """Fill by OpenCV's fast marching method (Telea 2004); arguments as in ``mean_fill``."""
    return _opencv(image, known, cv2.INPAINT_TELEA)


def navier_stokes(image: UInt8Array, known: BoolArray) -> UInt8Array:
    """Fill by OpenCV's fluid dynamics (Bertalmio et al. 2001); arguments as in ``mean_fill``."""
    return _opencv(image, known, cv2.INPAINT_NS)


def _opencv(image: UInt8Array, known: BoolArray, method: int) -> UInt8Array:
    if not known.any():
        return mean_fill(image, known)
    # Its values in the hole are cleared first: no method may see the truth.
    cleared = np.where(known[:, :, None], image, np.uint8(0))
    result = cv2.inpaint(cleared, (~known).astype(np.uint8), RADIUS, method)
    return np.where(known[:, :, None], image, np.asarray(result, dtype=np.uint8))


BASELINES: dict[str, Method] = {
    "mean": mean_fill,
    "telea": telea,
    "navier-stokes": navier_stokes,
}
"""The classical methods by name."""


class TorchScriptMethod:
    """An inpainting network as a TorchScript file, such as the released one of LaMa.

    It is fed as LaMa's is: picture in [0, 1] with the hole blanked, mask with 1 = hole, both sides
    padded to multiples of 8 by mirroring at the right and bottom; it returns a picture in [0, 1].
    A TorchScript file is a program: run only files that you trust.

    Args:
        path: The file.
        device: ``"cpu"``, ``"cuda"``, ...

    Raises:
        InputError: If the file is missing or is not TorchScript, or the device is not there.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{path}: no such TorchScript file")
        self.device = choose_device(device)
        try:
            with warnings.catch_warnings():  # torch's advice is for whoever wrote the file
                warnings.filterwarnings("ignore", ".*torch.jit.*deprecated.*")
                self.network = torch.jit.load(str(path), map_location=self.device).eval()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{path}: not a TorchScript file ({reason})") from None

    @torch.no_grad()
    def __call__(self, image: UInt8Array, known: BoolArray) -> UInt8Array:
        """Fill the hole; known pixels keep their bits.

        Args:
            image: ``(H, W, 3)`` uint8.
            known: ``(H, W)`` bool.

        Raises:
            InputError: If the network fails, or returns no picture of this size.
        """
        height, width = known.shape
        padded, holes = (pad_to_stride(x, MULTIPLE) for x in (image, ~known))
        picture = torch.from_numpy(padded).to(self.device).permute(2, 0, 1)[None].float() / 255
        hole = torch.from_numpy(holes).to(self.device)[None, None].float()
        result = self._run(picture * (1 - hole), hole)[0, :, :height, :width].float()
        levels = (result * 255).round().clamp(0, 255)
        filled = levels.byte().permute(1, 2, 0).cpu().numpy()
        return np.where(known[:, :, None], image, filled)

    def _run(self, picture: Tensor, hole: Tensor) -> Tensor:
        try:
            result = self.network(picture, hole)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"{self.path}: fails with a picture and its hole, fed as to LaMa ({reason}); wrap "
                "a network that is fed otherwise in a function: FILE.py:FUNCTION"
            ) from None
        result = result[0] if isinstance(result, tuple | list) else result
        if not isinstance(result, Tensor) or result.shape != picture.shape:
            found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InputError(f"{self.path}: returns {found}, not a picture {tuple(picture.shape)}")
        return result


def load_method(name: str, device: str | None = None) -> Method:
    """Find a method by name.

    Args:
        name: ``mean``, ``telea`` or ``navier-stokes``; ``FILE.py:FUNCTION`` (the file
            may import others beside it) or ``PACKAGE.MODULE:FUNCTION``, called as
            ``FUNCTION(image, known)``; or a TorchScript file ending in ``.pt``, ``.pth``, ``.ts``
            or ``.torchscript``.
        device: Device of a TorchScript network; the CPU if None.

    Raises:
        InputError: If there is no such method.
    """
    if Path(name).suffix in (".pt", ".pth", ".ts", ".torchscript"):
        return TorchScriptMethod(name, device or "cpu")
    if device is not None:
        raise InputError(f"{name}: device is for TorchScript files only")
    if name in BASELINES:
        return BASELINES[name]
    module_name, colon, function_name = name.rpartition(":")
    if not colon:
        raise InputError(
            f"no method {name!r}: give one of {', '.join(BASELINES)}, path/to/file.py:function, "
            "package.module:function, or a TorchScript file"
        )
    try:
        module = _module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"{module_name}: cannot be imported ({error})") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"{module_name}: has no function {function_name!r}")
    method: Method = function
    return method


def _module(name: str) -> Any:
    path = Path(name)
    if path.suffix == ".py" or "/" in name:
        path = path if path.suffix == ".py" else path.with_suffix(".py")
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        spec = importlib.util.spec_from_file_location(f"_method_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where a dataclass looks up its annotations
        sys.path.append(str(path.resolve().parent))  # for what the file imports from beside it
        spec.loader.exec_module(module)
        return module
    return importlib.import_module(name)
