"""Which of its inputs does a network trained with one iteration not know what to do with?

Tests one model with more iterations, each time with some inputs put back to what training with one
iteration always showed: time 0, and an uncertainty and an initial mask that are functions of the
current mask. Prints PSNR in the hole as a Markdown table.

    python experiments/filled/inputs.py runs/cpu/table1/B-seed0/checkpoints/last.ckpt \
        runs/study/images/test runs/study/masks
"""

from collections.abc import Callable

import numpy as np
import torch
from jsonargparse import auto_cli
from torch import Tensor

from sdm_lightning.cli.figures import read_examples
from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.features.images import to_uint8
from sdm_lightning.inference import load_generator
from sdm_lightning.metrics.paired import psnr
from sdm_lightning.training.styles import draw_styles, styled_network

# Channels of the input: image 0-2, initial mask 3, mask 4, uncertainty 5, time 6.


def as_is(inputs: Tensor) -> Tensor:
    return inputs


def without_time(inputs: Tensor) -> Tensor:
    return torch.cat([inputs[:, :6], torch.zeros_like(inputs[:, 6:])], dim=1)


def as_in_first_iteration(inputs: Tensor) -> Tensor:
    """As if the pixels filled so far had been known from the start."""
    image, mask = inputs[:, :3], inputs[:, 4:5]
    return torch.cat([image, mask, mask, 1 - mask, torch.zeros_like(mask)], dim=1)


VARIANTS: dict[str, tuple[bool, Callable[[Tensor], Tensor]]] = {
    "as Eq. 5": (True, as_is),
    "filled pixels kept": (False, as_is),
    "kept, time 0": (False, without_time),
    "kept, all as in iteration 1": (False, as_in_first_iteration),
}


def main(
    weights: str,
    images: str,
    masks: str,
    iterations: tuple[int, ...] = (1, 2, 4, 10),
    count: int = 512,
) -> None:
    """Prints the table.

    Args:
        weights: A checkpoint or a weights file.
        images: Folder of pictures, all of one size.
        masks: Folder of masks with the pictures' names, white = known.
        iterations: Numbers of testing iterations.
        count: Most pictures.
    """
    torch.set_num_threads(1)
    examples = read_examples(images, masks, count, 0)
    original = torch.from_numpy(np.stack([e.image for e in examples])).permute(0, 3, 1, 2)
    image = original.float() / 127.5 - 1
    mask = torch.from_numpy(np.stack([e.known for e in examples]))[:, None].float()
    generator, _ = load_generator(weights)
    print(f"| iterations | {' | '.join(VARIANTS)} |")
    print("|---:|" + "---:|" * len(VARIANTS))
    for total in iterations:
        cells = []
        for repredict, change in VARIANTS.values():
            seeds = [torch.Generator().manual_seed(index) for index in range(len(examples))]
            styles = draw_styles(generator, len(examples), generator=seeds)
            network = styled_network(generator, styles)
            diffusion = SpatialDiffusion(num_iterations=total, repredict=repredict)
            with torch.inference_mode():
                filled = diffusion(
                    lambda inputs, n=network, c=change: n(c(inputs)), image, mask, generator=seeds
                )
            scores = psnr(to_uint8(filled.completed), original, mask)
            cells.append(f"{scores[scores.isfinite()].mean():.2f}")
        print(f"| {total} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    auto_cli(main)
