"""What is sensible for so many photos, and when there are enough to judge by."""

from dataclasses import dataclass

MIN_HELD_OUT = 5
"""Held-out photos below which KID says more about the photos than about the model."""

MAX_WINDOW_BYTES = 2_000_000_000


@dataclass(frozen=True)
class FinetuneDefaults:
    """How to fine-tune on so many photos.

    Attributes:
        learning_rate: Learning rate of both networks.
        max_images: Training images.
        half_life_images: Half-life of the moving average, which starts from the weights.
        num_windows: Windows to cut from the training photos.
    """

    learning_rate: float
    max_images: int
    half_life_images: int
    num_windows: int


# Photos below, learning rate, training images, half-life: the fewer the photos, the smaller and
# fewer the steps, so that a few photos do not undo what many taught. Rules of thumb; only the
# learning rate below 300 photos was chosen by trials (docs/finetune.md).
_ROWS = (
    (30, 1e-4, 5_000, 2_000),
    (300, 5e-4, 20_000, 5_000),
    (3_000, 5e-4, 60_000, 10_000),
    (None, 1e-3, 200_000, 10_000),
)


def defaults_for(
    num_photos: int, side: int, max_images: int | None, rate: float | None
) -> FinetuneDefaults:
    """Choose settings by the number of training photos.

    Args:
        num_photos: Photos to train on.
        side: Side of a window in pixels.
        max_images: Used instead of the default number of training images.
        rate: Used instead of the default learning rate.
    """
    row = next(row for row in _ROWS if row[0] is None or num_photos < row[0])
    images = max_images if max_images is not None else row[2]
    most = MAX_WINDOW_BYTES // (2 * side * side)
    return FinetuneDefaults(
        learning_rate=rate if rate is not None else row[1],
        max_images=images,
        half_life_images=row[3],
        # Each window is seen twice or so, every time with another crop, flip and mask.
        num_windows=max(min(images // 2, most), num_photos, 16),
    )
