"""What the inpainter returns: pictures, uncertainty, and the steps that led there."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sdm_lightning.arrays import BoolArray, FloatArray
from sdm_lightning.files import write_atomically
from sdm_lightning.inference.pictures import Array, Picture
from sdm_lightning.inference.regions import Box, Region


@dataclass(frozen=True)
class _Filled:
    """A completed picture with its uncertainty.

    Attributes:
        array: The completed picture, in the caller's shape and type.
        uncertainty: ``(H, W)`` float32 in [0, 1], 0 where known; stretched over all holes of the
            picture if ``uncertainty_scale`` of the diffusion is ``"minmax"``.
        picture: How to make a PIL image of it.
    """

    array: Array
    uncertainty: FloatArray
    picture: Picture

    @property
    def image(self) -> Image.Image:
        """The completed picture as a PIL image.

        Pillow's own ``save`` leaves EXIF out, and for some formats the colour profile too.
        """
        return self.picture.to_pil(self.array)

    def save(self, path: str | Path) -> None:
        """Write the completed picture whole or not at all, with colour profile and EXIF.

        The suffix names the format. PNG and TIFF keep every pixel and 16-bit grey; what is
        transparent is laid over white in JPEG and BMP files.

        Raises:
            InputError: If the format is unknown or cannot hold it.
        """
        from sdm_lightning.inference.writing import file_content

        write_atomically(Path(path), file_content(self.image, Path(path).suffix, str(path)))

    def encode(self, suffix: str = ".png") -> bytes:
        """Return the bytes of the file that ``save`` writes under a name with that suffix.

        Raises:
            InputError: As ``save``.
        """
        from sdm_lightning.inference.writing import file_content

        return file_content(self.image, suffix, "the picture")

    @property
    def uncertainty_image(self) -> Image.Image:
        """The uncertainty in colours, dark = certain; black where known."""
        return heat_map(self.uncertainty)


@dataclass(frozen=True)
class InpaintingStep(_Filled):
    """The picture after one iteration; its uncertainty is that before pixels are picked.

    Attributes:
        mask: ``(H, W)`` bool, True = known, given or picked so far.
    """

    mask: BoolArray


@dataclass(frozen=True)
class InpaintingSample(_Filled):
    """One filling of a picture's holes; its uncertainty is that of the first iteration.

    Attributes:
        steps: One per iteration, or empty if they were not kept.
        seed: Seed that gives this sample again.
    """

    steps: list[InpaintingStep]
    seed: int


@dataclass(frozen=True)
class Inpainting(InpaintingSample):
    """Everything that ``Inpainter`` returns: the first sample, and all of them.

    Attributes:
        samples: One per filling that was requested.
        mask: ``(H, W)`` bool, True = known, as it was understood.
        boxes: Where the network worked.
    """

    samples: list[InpaintingSample]
    mask: BoolArray
    boxes: list[Box]


@dataclass(frozen=True)
class RegionStep:
    """One iteration in one cut-out, handed out while a picture is being filled.

    Arrays have the size at which the network worked, ``(h, w)``; the cut-out may be larger.

    Attributes:
        sample: Number of the sample, from 0.
        cut_out: Number of the cut-out, from 0.
        num_cut_outs: Cut-outs in all.
        iteration: Iterations done in this cut-out, from 1.
        num_iterations: Iterations in all.
        region: Where it lies in the picture, and which pixels are filled from it.
        completed: ``(h, w, 3)``, about [-1, 1], known pixels included; predictions are not
            clamped.
        deviation: ``(h, w)``, the predicted standard deviation of a colour in units of the range
            [-1, 1], one for the three channels as ``uncertainty_channels`` of the diffusion says;
            comparable between pictures.
        mask: ``(h, w)`` bool, True = known, given or picked so far.
    """

    sample: int
    cut_out: int
    num_cut_outs: int
    iteration: int
    num_iterations: int
    region: Region
    completed: FloatArray
    deviation: FloatArray
    mask: BoolArray


def heat_map(uncertainty: FloatArray) -> Image.Image:
    """Colour ``(H, W)`` values in [0, 1] from black (0) over purple to yellow (1)."""
    levels = np.rint(uncertainty.clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, :, ::-1].copy())
