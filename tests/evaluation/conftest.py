"""Folders of originals, results and masks; an evaluator without any download."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class Folders:
    """Six originals, results with a grey square, masks of the square (white = known)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real, self.fake, self.masks = (str(root / n) for n in ("real", "fake", "masks"))
        rng = np.random.default_rng(0)
        for folder in (self.real, self.fake, self.masks):
            Path(folder).mkdir()
        for i in range(6):
            low = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
            real = np.asarray(low.resize((40, 48), Image.Resampling.BICUBIC))
            fake, mask = real.copy(), np.full(real.shape[:2], 255, np.uint8)
            top, left = rng.integers(4, 20, 2)
            fake[top : top + 20, left : left + 16] = 128
            mask[top : top + 20, left : left + 16] = 0
            for folder, pixels in ((self.real, real), (self.fake, fake), (self.masks, mask)):
                Image.fromarray(pixels).save(f"{folder}/photo{i}.png")


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Fresh folders, free to be damaged."""
    return Folders(tmp_path)
