"""Draw scores of held-out windows over the images that the weights had seen.

python experiments/photos/score.py runs/photos/test '[WEIGHTS]' --out SCORES.jsonl
python experiments/photos/curves.py SCORES.jsonl curves.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from jsonargparse import auto_cli

from sdm_lightning.cli.errors import user_errors

PANELS = {
    "kid[efficientnet-lite2]": "KID x 1000 [efficientnet-lite2], less is better",
    "feature_distance[efficientnet-lite2]": "feature distance [efficientnet-lite2], less is better",
    "psnr_hole": "PSNR in the hole, dB",
}
COLOURS = {1: "#9db2f0", 2: "#5d7de0", 4: "#1f3fae", 8: "#101f57"}
GREY = "#8a8a94"


def curves(scores: Path, out: Path) -> None:
    """Draw one panel a score, one line a number of iterations, and OpenCV's methods as levels.

    Args:
        scores: Lines of ``score.py``; those of other training (named "control...") are left out.
        out: The picture.
    """
    rows: list[dict[str, Any]] = [json.loads(line) for line in scores.read_text().splitlines()]
    classical = [x for x in rows if x["iterations"] is None and not x["method"].startswith("mean")]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.8))
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        for count, colour in COLOURS.items():
            points = sorted(
                (row["images_seen"] / 1000, row[name])
                for row in rows
                if row["iterations"] == count and not row["method"].startswith("control")
            )
            label = f"{count} iteration{'s' * (count > 1)}"
            axis.plot(*zip(*points, strict=True), "o-", ms=3.5, color=colour, label=label)
        for row, style in zip(classical, ("--", ":"), strict=True):
            axis.axhline(row[name], color=GREY, ls=style, lw=1, label=row["method"])
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("thousand images seen", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    with user_errors():
        auto_cli(curves, as_positional=True)
