"""How long a free-form mask takes, beside the reference generators.

Prints, per preset, the median of three runs of ``--draws`` masks in ms/mask, the reference figure
(the published generators, Pillow 13 and OpenCV 5, one pinned core) and the mean hole ratio of
both. Timings depend on the machine; the reference was measured on another one.

Run: ``python benchmarks/mask_speed.py [--draws 300]``
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import cv2
import numpy as np

from sdm_lightning.data.masks.presets import free_form_mask, hole_ratio

# preset, size, scale_lengths, reference ms/mask, reference mean hole ratio
ROWS = [
    ("mat512_large", 512, True, 1.01, 0.399),
    ("mat512_small", 512, True, 0.49, 0.222),
    ("mat256_large", 256, True, 0.57, 0.406),
    ("mat256_small", 256, True, 0.22, 0.220),
    ("comodgan512", 512, True, 2.22, 0.645),
    ("comodgan256", 256, True, 1.37, 0.727),
    ("mat512_large", 256, False, 0.67, 0.488),
    ("lama_train", 256, True, 0.14, 0.356),
    ("lama_thick", 256, True, 0.18, 0.401),
    ("lama_thick", 512, True, 0.24, 0.463),
    ("lama_medium", 256, True, 0.23, 0.242),
    ("lama_medium", 512, True, 0.41, 0.306),
    ("lama_thin", 256, True, 1.3, 0.294),
    ("lama_thin", 512, True, 3.1, 0.297),
    ("mat256_large", 64, True, None, 0.406),
]


def measure(preset: str, size: int, scale_lengths: bool, draws: int) -> tuple[float, float]:
    """Return (ms/mask, mean hole ratio); processor time, so that neighbours do not count."""
    times: list[float] = []
    ratios: list[float] = []
    for run in range(3):
        start = time.process_time()
        masks = [
            free_form_mask(preset, size, run * draws + i, scale_lengths=scale_lengths)
            for i in range(draws)
        ]
        times.append((time.process_time() - start) / draws * 1e3)
        ratios.extend(hole_ratio(mask) for mask in masks)
    return statistics.median(times), float(np.mean(ratios))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time free-form masks.")
    parser.add_argument("--draws", type=int, default=300, help="masks per run")
    draws = parser.parse_args().draws
    print(
        f"python {platform.python_version()}, numpy {np.__version__}, opencv {cv2.__version__}, "
        f"{platform.machine()}, 3 x {draws} masks each"
    )
    print(
        f"{'preset':<14} {'size':>4} {'scaled':>6} {'ms':>6} {'ref ms':>6} {'mean':>6} {'ref':>6}"
    )
    for preset, size, scale_lengths, reference, mean in ROWS:
        found, ratio = measure(preset, size, scale_lengths, draws)
        known = "-" if reference is None else f"{reference:.2f}"
        print(
            f"{preset:<14} {size:>4} {scale_lengths!s:>6} {found:>6.2f} {known:>6} "
            f"{ratio:>6.3f} {mean:>6.3f}"
        )


if __name__ == "__main__":
    main()
