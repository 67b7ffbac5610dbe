"""Inpainting of any picture with a trained generator.

>>> from sdm_lightning import Inpainter
>>> inpainter = Inpainter.from_pretrained()
>>> result = inpainter("photo.jpg", "mask.png")          # white = known, black = fill this
>>> result.save("photo-inpainted.png")
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sdm_lightning.arrays import FloatArray
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.devices import choose_device
from sdm_lightning.diffusion import (
    Network,
    SpatialDiffusion,
    network_output,
    standard_deviation_map,
)
from sdm_lightning.errors import InputError
from sdm_lightning.inference import publishing
from sdm_lightning.inference.canvas import Canvas
from sdm_lightning.inference.finish import Cutout, finished
from sdm_lightning.inference.locating import DEFAULT_WEIGHTS
from sdm_lightning.inference.pictures import Picture, PictureLike, read_mask, read_picture
from sdm_lightning.inference.precision import Precision, wants_bfloat16
from sdm_lightning.inference.regions import (
    Region,
    enlarge,
    hole_regions,
    pad_to_stride,
    shrink,
)
from sdm_lightning.inference.results import Inpainting, RegionStep
from sdm_lightning.inference.weights import Parameters, WeightsInfo, load_generator
from sdm_lightning.seeding import stable_seed


def check_options(
    num_samples: int,
    num_iterations: int | None,
    seed: int,
    work_size: int | None,
    context: float,
    truncation: float = 1.0,
) -> None:
    """Refuse options of ``Inpainter`` with which no picture can be filled.

    Raises:
        InputError: In one line that names the option.
    """
    if num_samples < 1:
        raise InputError(f"num_samples is {num_samples}; it must be at least 1")
    if num_iterations is not None and num_iterations < 1:
        raise InputError(f"num_iterations is {num_iterations}; it must be at least 1")
    try:
        usable = 0 <= operator.index(seed) < 2**63
    except TypeError:
        usable = False
    if not usable:
        raise InputError(f"seed is {seed}; choose a whole number from 0 to 2**63 - 1")
    if work_size is not None and work_size < 0:
        raise InputError(f"work_size is {work_size}; it must be positive, or 0 for no limit")
    if not 0 <= context <= 1e6:  # more than any picture has; far more would not fit an integer
        raise InputError(f"context is {context}; it must be a number from 0 to 1e6")
    if not math.isfinite(truncation):
        raise InputError(f"truncation is {truncation}; it must be a number, such as 0.7")


@dataclass(frozen=True)
class _Place:
    """Which cut-out of which sample is filled; as in ``RegionStep``."""

    sample: int
    cut_out: int
    num_cut_outs: int
    region: Region
    num_iterations: int


class Inpainter:
    """Fills the holes of pictures of any size; known pixels stay exactly as they are.

    Args:
        generator: Maps ``(B, 7, H, W)`` to mean and log variance; with ``mapping`` and
            ``latent_dim`` (as ``sdm_lightning.models.Generator`` has) each seed is a sample.
        diffusion: The loop; its defaults if None.
        work_size: Longest side, in pixels, that the network sees (the resolution it was trained
            at); None for no limit.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` for the best there is; None leaves
            the generator where it is. It is used in place, in eval mode.
        info: Where the weights come from.
    """

    def __init__(
        self,
        generator: nn.Module,
        diffusion: SpatialDiffusion | None = None,
        *,
        work_size: int | None = None,
        device: str | torch.device | None = None,
        info: WeightsInfo | None = None,
    ) -> None:
        if device is None:
            first = next(generator.parameters(), None)
            device = "cpu" if first is None else first.device
        self.device = choose_device(device)
        self.generator = generator.to(self.device).eval()
        self.diffusion = diffusion if diffusion is not None else SpatialDiffusion()
        self.work_size = work_size
        self.stride = int(getattr(generator, "stride", 1))
        self.info = info

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path = DEFAULT_WEIGHTS,
        device: str | torch.device = "cpu",
        *,
        parameters: Parameters = "ema",
        trusted_packages: tuple[str, ...] = ("sdm_lightning",),
    ) -> "Inpainter":
        """Load weights that this package carries, that lie in a file, or that are on the hub.

        Args:
            weights: ``"photos-128"`` or ``"demo"``, which the package carries; a ``.safetensors``
                file, a ``.ckpt`` of training, the directory of a run; a folder that
                ``save_pretrained`` wrote; ``"user/repo"`` on the Hugging Face Hub, or
                ``"user/repo@REVISION"`` for a branch, a tag, or the commit that pins the weights.
            device: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``.
            parameters: Weights of a checkpoint: the moving average (``"ema"``) or the ``"raw"``
                ones.
            trusted_packages: Packages whose classes the file's configuration may name; the
                environment variable ``SDM_TRUSTED_PACKAGES`` adds others, separated by commas.

        Returns:
            The inpainter, which works at the size that the weights were trained at.

        Raises:
            InputError: If the weights cannot be found, read, or trusted.
        """
        generator, info = load_generator(
            weights, parameters=parameters, trusted_packages=trusted_packages
        )
        return cls(
            generator,
            info.build_diffusion(trusted_packages),
            work_size=info.resolution,
            device=device,
            info=info,
        )

    save_pretrained = publishing.save_pretrained
    push_to_hub = publishing.push_to_hub

    def __call__(
        self,
        image: PictureLike | Picture,
        mask: PictureLike,
        *,
        mask_convention: MaskConvention = "known-white",
        num_iterations: int | None = None,
        num_samples: int = 1,
        seed: int = 0,
        truncation: float = 1.0,
        work_size: int | None = None,
        context: float = 0.5,
        detail: bool = True,
        seams: bool = True,
        precision: Precision = "32-true",
        keep_steps: bool = True,
        on_step: Callable[[RegionStep], None] | None = None,
    ) -> Inpainting:
        """Fill the holes of one picture.

        Args:
            image: Path, a file's bytes, PIL image, or array of uint8 or uint16: grey or colour,
                with or without transparency, any size. EXIF orientation is applied; what is filled
                is opaque.
            mask: Path, a file's bytes, PIL image or array of its size; see ``mask_convention``.
            mask_convention: ``"known-white"``: white (1, True) is kept, black is filled.
                ``"hole-white"``: white is filled.
            num_iterations: Number of iterations; the number stored with the weights if None.
            num_samples: Fillings per picture, differing in latent code and noise.
            seed: Seed of the first sample; sample k is what ``seed + k`` gives alone.
            truncation: Below 1 pulls samples towards the average style; 0 makes style constant.
            work_size: Longest side of what the network sees; None: the resolution of its training
                crops; 0: no limit, always full resolution. Larger cut-outs are shrunk for it and
                its filling enlarged.
            context: Width of the context around each hole, as a multiple of the hole's side.
            detail: In pictures larger than ``work_size``, give fillings the fine detail of places
                around them that look alike; False leaves what the network drew, enlarged.
            seams: Let fillings meet the pixels around them by a smooth offset, inside the hole
                only; False leaves the network's output as it is, as scores need it.
            precision: ``"32-true"``; ``"bf16-mixed"``: convolutions in bfloat16; ``"auto"``: that
                where the processor computes in it, half the time for the paper's network.
            keep_steps: Keep every iteration's pictures; costs memory for large photos.
            on_step: Called after each iteration in each cut-out. What it raises ends the call.

        Returns:
            The first sample, with all samples, the mask as it was understood, and the cut-outs.

        Raises:
            InputError: If image, mask or an option is unusable, or the network's output is not
                finite; the message says how.
        """
        check_options(num_samples, num_iterations, seed, work_size, context, truncation)
        seed = operator.index(seed)  # of NumPy's integers, too
        bfloat16 = wants_bfloat16(precision, self.device)
        picture = read_picture(image)
        known = read_mask(mask, picture.shape, mask_convention)
        picture = picture.opaque_in(~known)
        limit = self._limit(work_size)
        regions = hole_regions(known, context, limit or self._limit(None))
        total = self.diffusion.num_iterations if num_iterations is None else num_iterations
        values = picture.normalised()
        # A picture that the network sees whole shows what it draws, as its scores do.
        cut_out = limit is not None and max(picture.shape) > limit
        finish = partial(finished, detail=detail and cut_out, seams=seams)
        samples = []
        for index in range(num_samples):
            kept = total if regions and keep_steps else 0
            canvas = Canvas(picture, values, known, kept, self.diffusion.uncertainty_scale)
            # The smallest first: they are the surest, and the larger ones see what they became.
            for number, region in reversed(list(enumerate(regions))):
                # The largest hole's seed is the sample's own: what validation in training gives.
                own = seed + index if number == 0 else stable_seed(seed + index, number)
                place = _Place(index, len(regions) - 1 - number, len(regions), region, total)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                    self._fill(canvas, place, limit, own, truncation, finish, on_step)
            samples.append(canvas.sample(seed + index))
        boxes = [region.box for region in regions]
        return Inpainting(**vars(samples[0]), samples=samples, mask=known, boxes=boxes)

    def _limit(self, work_size: int | None) -> int | None:
        size = self.work_size if work_size is None else work_size
        if size is None or size == 0:
            return None
        # Rounded up: a limit between two multiples would only be padded with mirrored pixels.
        return -(-size // self.stride) * self.stride

    def _fill(
        self,
        canvas: Canvas,
        place: _Place,
        limit: int | None,
        seed: int,
        truncation: float,
        finish: Callable[[FloatArray, Cutout, Cutout], FloatArray],
        on_step: Callable[[RegionStep], None] | None,
    ) -> None:
        """Run the iterations on one cut-out and put their results on the canvas."""
        region, total = place.region, place.num_iterations
        box = region.box
        image, known = canvas.completed[box.slices], canvas.known_or_filled[box.slices]
        small, small_known = shrink(image, known, limit)
        height, width = small_known.shape
        inputs = torch.from_numpy(np.ascontiguousarray(pad_to_stride(small, self.stride)))
        masks = torch.from_numpy(pad_to_stride(small_known, self.stride).astype(np.float32))
        # On the CPU, so that one seed is one filling on every device; one generator per cut-out, so
        # that it does not depend on what else is filled.
        rng = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            steps = self.diffusion.iterate(
                self._network(rng, truncation),
                inputs.permute(2, 0, 1)[None].to(self.device),
                masks[None, None].to(self.device),
                num_iterations=total,
                generator=[rng],
            )
            for index, step in enumerate(steps):
                last = index + 1 == total
                channels = self.diffusion.uncertainty_channels
                deviations = standard_deviation_map(step.log_variance, channels)
                deviation = _plane(deviations, height, width)
                mask = _plane(step.state.mask, height, width)
                filling = _plane(step.completed, height, width)
                if index == 0:
                    canvas.put_deviation(region, deviation)
                if on_step is not None:
                    on_step(
                        RegionStep(
                            **vars(place),
                            iteration=step.state.step,
                            completed=filling,
                            deviation=deviation,
                            mask=mask > 0.5,
                        )
                    )
                if last:
                    filling = finish(filling, (small, small_known), (image, known))
                elif canvas.steps:
                    filling = enlarge(filling, *known.shape)
                else:
                    continue
                canvas.put(region, index, filling, deviation, mask, last)

    def _network(self, rng: torch.Generator, truncation: float) -> Network:
        mapping = getattr(self.generator, "mapping", None)
        if mapping is None:
            return partial(network_output, self.generator)
        size = int(self.generator.latent_dim)  # type: ignore[arg-type]
        styles = mapping(torch.randn(size, generator=rng)[None].to(self.device))
        if truncation != 1:
            styles = mapping.average + truncation * (styles - mapping.average)
        return lambda inputs: network_output(self.generator, inputs, styles)


def _plane(tensor: Tensor, height: int, width: int) -> FloatArray:
    """Convert ``(1, C, H, W)`` to ``(H, W)`` or ``(H, W, 3)``, without the padding."""
    array = tensor[0, :, :height, :width].permute(1, 2, 0).float().cpu().numpy()
    return np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array)
