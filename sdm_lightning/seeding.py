"""Seeds that are the same in every process, on every machine, in every run."""

from __future__ import annotations

import hashlib

import numpy as np


def stable_seed(*parts: int | str) -> int:
    """Hash numbers and strings to a seed.

    Python's own ``hash()`` of a string differs from process to process, so every data-loading
    worker and every resumed run would get other crops and masks.

    Args:
        parts: for instance a base seed, a sample key and the number of the pass. ``1`` and
            ``"1"`` are different parts.

    Returns:
        An integer in ``0 .. 2**63 - 1``.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stable_rng(*parts: int | str) -> np.random.Generator:
    """Return a generator seeded by ``stable_seed`` of the parts."""
    return np.random.Generator(np.random.PCG64(stable_seed(*parts)))
