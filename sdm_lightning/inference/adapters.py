"""Other methods on the same pictures and masks: classical ones, your own function, TorchScript.

Every method is wrapped in one form, ``method(image, known) -> result`` on uint8 arrays, so that all
of Table 3's systems are run and scored alike: ``sdm baseline`` writes a folder of results, and
``sdm evaluate`` scores any folder.
"""

import importlib
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sdm_lightning.arrays import Bools, Bytes
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.data.named_images import NamedImages
from sdm_lightning.devices import choose_device
from sdm_lightning.errors import InputError
from sdm_lightning.files import atomic_file
from sdm_lightning.inference.baselines import mean_fill, navier_stokes, telea
from sdm_lightning.inference.regions import pad_to_stride

Method: TypeAlias = Callable[[Bytes, Bools], Bytes]
"""Takes ``(H, W, 3)`` uint8 and ``(H, W)`` bool, True = known; returns ``(H, W, 3)`` uint8."""

CLASSICAL: dict[str, Method] = {
    "mean": mean_fill,
    "telea": telea,
    "navier-stokes": navier_stokes,
}


class TorchScriptMethod:
    """An inpainting network as a TorchScript file, such as the released one of LaMa.

    Networks differ in their inputs; the defaults are LaMa's: picture in [0, 1] with the hole
    blanked, mask with 1 = hole, two arguments, sides padded to multiples of 8. A TorchScript file
    is a program: run only files that you trust.

    Args:
        path: The file.
        value_range: ``"unit"`` feeds and reads pictures in [0, 1], ``"signed"`` in [-1, 1].
        mask_value: What marks the hole in the mask that is fed: 1 or 0.
        arguments: ``"image,mask"``, ``"mask,image"`` (two arguments), or ``"concatenated"`` (one
            tensor ``(B, 4, H, W)``, picture first).
        multiple: Both sides are padded to a multiple of it, by mirroring at the right and bottom.
        device: ``"cpu"``, ``"cuda"``, ...

    Raises:
        InputError: If the file is missing or is not TorchScript, or the device is not there.
    """

    def __init__(
        self,
        path: str | Path,
        value_range: Literal["unit", "signed"] = "unit",
        mask_value: Literal[0, 1] = 1,
        arguments: Literal["image,mask", "mask,image", "concatenated"] = "image,mask",
        multiple: int = 8,
        device: str = "cpu",
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{path}: no such TorchScript file")
        self.device = choose_device(device)
        try:
            self.network = torch.jit.load(str(path), map_location=self.device).eval()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{path}: not a TorchScript file ({reason})") from None
        self.value_range = value_range
        self.mask_value = mask_value
        self.arguments = arguments
        self.multiple = multiple

    @torch.no_grad()
    def __call__(self, image: Bytes, known: Bools) -> Bytes:
        """Fill the hole; known pixels keep their bits.

        Args:
            image: ``(H, W, 3)`` uint8.
            known: ``(H, W)`` bool.

        Raises:
            InputError: If the network fails, or returns no picture of this size.
        """
        height, width = known.shape
        padded, holes = (pad_to_stride(x, self.multiple) for x in (image, ~known))
        picture = torch.from_numpy(padded).to(self.device).permute(2, 0, 1)[None].float()
        picture = picture / 255 if self.value_range == "unit" else picture / 127.5 - 1
        hole = torch.from_numpy(holes).to(self.device)[None, None].float()
        picture = picture * (1 - hole)
        mask = hole if self.mask_value == 1 else 1 - hole
        result = self._run(picture, mask)[0, :, :height, :width].float()
        levels = result * 255 if self.value_range == "unit" else result * 127.5 + 127.5
        filled = levels.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        return np.where(known[:, :, None], image, filled)

    def _run(self, picture: Tensor, mask: Tensor) -> Tensor:
        try:
            if self.arguments == "concatenated":
                result = self.network(torch.cat([picture, mask], dim=1))
            elif self.arguments == "mask,image":
                result = self.network(mask, picture)
            else:
                result = self.network(picture, mask)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"{self.path}: fails with arguments '{self.arguments}' ({reason}); check what the "
                "network was exported for"
            ) from None
        result = result[0] if isinstance(result, tuple | list) else result
        if not isinstance(result, Tensor) or result.shape != picture.shape:
            found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InputError(f"{self.path}: returns {found}, not a picture {tuple(picture.shape)}")
        return result


def load_method(name: str, **options: Any) -> Method:
    """Find a method by name.

    Args:
        name: ``mean``, ``telea`` or ``navier-stokes``; ``FILE.py:FUNCTION`` or
            ``PACKAGE.MODULE:FUNCTION``, called as ``FUNCTION(image, known)``; or a TorchScript
            file ending in ``.pt``, ``.pth``, ``.ts`` or ``.torchscript``.
        options: Of ``TorchScriptMethod``.

    Raises:
        InputError: If there is no such method.
    """
    if name in CLASSICAL and not options:
        return CLASSICAL[name]
    if Path(name).suffix in (".pt", ".pth", ".ts", ".torchscript"):
        return TorchScriptMethod(name, **options)
    if options:
        raise InputError(f"{name}: {', '.join(options)} are for TorchScript files only")
    module_name, colon, function_name = name.rpartition(":")
    if not colon:
        raise InputError(
            f"no method {name!r}: give one of {', '.join(CLASSICAL)}, path/to/file.py:function, "
            "package.module:function, or a TorchScript file"
        )
    function = getattr(_module(module_name), function_name, None)
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
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{name}: cannot be imported ({error})") from None


def checked(method: Method, image: Bytes, known: Bools, name: str) -> Bytes:
    """Call a method on copies, check size and type of its result, and restore known pixels.

    Known pixels are put back: most networks change them a little, and the protocol compares
    composites.

    Raises:
        InputError: If the result is not an ``(H, W, 3)`` uint8 array of the picture's size.
    """
    result = np.asarray(method(image.copy(), known.copy()))
    if result.shape != image.shape or result.dtype != np.uint8:
        raise InputError(f"{name}: returned {result.dtype} {result.shape}, not uint8 {image.shape}")
    return np.where(known[:, :, None], image, result)


def run_baseline(
    method: str,
    images: str,
    masks: str,
    output: str,
    mask_convention: MaskConvention = "known-white",
    overwrite: bool = False,
    value_range: Literal["unit", "signed"] | None = None,
    mask_value: Literal[0, 1] | None = None,
    arguments: Literal["image,mask", "mask,image", "concatenated"] | None = None,
    multiple: int | None = None,
    device: str | None = None,
) -> None:
    """Fill the holes of a folder of pictures with another method, for comparison.

    The results are PNGs with the pictures' names, composited with the known pixels; score them
    with: sdm evaluate IMAGES OUTPUT --masks MASKS

    Args:
        method: One of mean, telea, navier-stokes; FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION,
            called with uint8 (H, W, 3) and bool (H, W), True = known; or a TorchScript file such as
            LaMa's.
        images: Folder of pictures.
        masks: Folder of masks with the pictures' names.
        output: Folder for the results.
        mask_convention: What white means in them: known-white or hole-white.
        overwrite: Replace results that exist.
        value_range: TorchScript: unit (0 to 1, the default) or signed (-1 to 1).
        mask_value: TorchScript: what marks the hole, 1 (the default) or 0.
        arguments: TorchScript: image,mask (the default), mask,image or concatenated.
        multiple: TorchScript: sides are padded to multiples of it (8).
        device: TorchScript: cpu (the default), cuda, ...

    Raises:
        InputError: If a folder, a mask or the method is missing or wrong.
    """
    options = {
        "value_range": value_range,
        "mask_value": mask_value,
        "arguments": arguments,
        "multiple": multiple,
        "device": device,
    }
    run = load_method(method, **{key: v for key, v in options.items() if v is not None})
    for folder in (images, masks):
        if Path(output).resolve() == Path(folder).resolve():
            raise InputError(f"{output}: is an input folder; name another")
    pictures, holes = NamedImages(images), NamedImages(masks)
    holes.require(list(pictures.entries), "mask")
    started, done = time.perf_counter(), 0
    for key, entry in tqdm(pictures.entries.items(), unit="img", disable=not sys.stderr.isatty()):
        target = (Path(output) / entry.name).with_suffix(".png")
        if target.exists() and not overwrite:
            continue
        image, known = pictures.image(key), holes.mask(key, mask_convention).astype(bool)
        if known.shape != image.shape[:2]:
            raise InputError(f"{holes.label(key)}: its size is not that of {pictures.label(key)}")
        with atomic_file(target) as file:
            name = f"{method}, {pictures.label(key)}"
            Image.fromarray(checked(run, image, known, name)).save(file, format="PNG")
        done += 1
    seconds = time.perf_counter() - started
    total = len(pictures.entries)
    print(f"{output}: {done} of {total} pictures filled by {method} in {seconds:.1f} s")
    if done < total:
        print(f"{total - done} were there already, whoever made them; --overwrite replaces them")
    words = ["sdm", "evaluate", images, output, "--masks", masks]
    if mask_convention != "known-white":
        words += ["--mask_convention", mask_convention]
    print(f"score them: {shlex.join(words)}")
