"""Features of original images, kept from one evaluation to the next."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically


class RealFeatureCache:
    """Feature rows by the pixels that they came from.

    A file is named by a hash of the set's description (where the images are, crop, extractor, its
    weights' hash). Inside, each row is found by the hash of the 8-bit pixels that went into the
    network, so a row is never used for an image that has changed, even where the description does
    not show the change.

    Args:
        folder: Folder of the files; None keeps the rows in memory only.
        description: Names the set; anything that JSON can hold.
        dim: Length of a row of the extractor.
        rank: Rank of this process; each process writes a file of its own.

    Raises:
        InputError: If a file is damaged.
    """

    def __init__(
        self, folder: str | Path | None, description: Mapping[str, Any], dim: int, rank: int = 0
    ) -> None:
        self.description = dict(description)
        self.dim = dim
        text = json.dumps(self.description, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self.folder = Path(folder) if folder is not None else None
        self.rank = rank
        self.hits = 0
        self._rows: dict[int, Tensor] = {}
        self._changed = False
        if self.folder is not None:
            for file in sorted(self.folder.glob(f"{self.key}-*.safetensors")):
                self._read(file)

    def __len__(self) -> int:
        return len(self._rows)

    def _read(self, file: Path) -> None:
        try:
            with safe_open(file, "pt") as content:
                stored = content.metadata()["description"]
                # Copies: some systems cannot replace a file that tensors are mapped from.
                digests = content.get_tensor("digests").clone()
                features = content.get_tensor("features").clone()
            if digests.dtype != torch.int64 or features.dtype != torch.float32:
                raise ValueError("digests or features are of another type")
            if digests.ndim != 1 or features.shape != (len(digests), self.dim):
                raise ValueError("digests and features do not fit each other")
            if not features.isfinite().all():
                raise ValueError("a feature is not finite")
        except Exception as error:  # of safetensors, of a missing name and of the checks above
            raise InputError(
                f"{file}: damaged feature cache ({type(error).__name__}); delete it"
            ) from error
        if stored != json.dumps(self.description, sort_keys=True):
            raise InputError(f"{file}: belongs to another data set; delete it")
        self._rows.update(zip(digests.tolist(), features, strict=True))

    def lookup(self, digests: Tensor) -> Tensor | None:
        """Return rows ``(B, D)`` of these images, or None if one of them is not known.

        Args:
            digests: int64 ``(B,)``, hashes of the pixels.
        """
        rows = [self._rows.get(digest) for digest in digests.tolist()]
        known = [row for row in rows if row is not None]
        if len(known) < len(rows) or not rows:
            return None
        self.hits += len(known)
        return torch.stack(known)

    def add(self, digests: Tensor, features: Tensor) -> None:
        """Keep rows ``(B, D)`` of these images."""
        self._rows.update(zip(digests.tolist(), features.detach().cpu().clone(), strict=True))
        self._changed = True

    def save(self) -> Path | None:
        """Write the rows to disk if there are new ones.

        Returns:
            The file; None if nothing was written, which a full disk leads to as well: the rows can
            be computed again, the scores that wait to be recorded cannot.
        """
        if self.folder is None or not self._changed or not self._rows:
            return None
        path = self.folder / f"{self.key}-{self.rank}.safetensors"
        rows = {
            "digests": torch.tensor(list(self._rows)),
            "features": torch.stack([*self._rows.values()]),
        }
        text = json.dumps(self.description, sort_keys=True)
        try:
            write_atomically(path, save(rows, {"description": text}))
        except OSError as error:
            logging.getLogger(__name__).warning(
                "%s: features are not kept (%s)", self.folder, error.strerror or error
            )
            return None
        self._changed = False
        return path
