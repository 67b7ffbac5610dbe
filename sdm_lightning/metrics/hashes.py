"""64-bit numbers for keys and pixels, the same in every process."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def row_hashes(rows: Sequence[bytes | str]) -> Tensor:
    """Hash each row to 64 bits, the same in every process (BLAKE2b, not Python's ``hash``).

    Args:
        rows: ``B`` keys or blocks of bytes.

    Returns:
        int64 ``(B,)`` on the CPU.
    """
    values = [
        int.from_bytes(
            hashlib.blake2b(row.encode() if isinstance(row, str) else row, digest_size=8).digest(),
            "big",
            signed=True,
        )
        for row in rows
    ]
    return torch.tensor(values, dtype=torch.int64)


def pixel_hashes(images: Tensor) -> Tensor:
    """Hash the shape and the pixels of each image to 64 bits.

    Args:
        images: ``(B, C, H, W)`` of any type.

    Returns:
        int64 ``(B,)`` on the CPU.
    """
    shape = str(tuple(images.shape[1:])).encode()
    return row_hashes([shape + image.numpy().tobytes() for image in images.detach().cpu()])
