"""Which checkpoints a run may delete: those that it wrote, and no others."""

import json
from collections.abc import Mapping
from pathlib import Path

from sdm_lightning.files import write_atomically


class WrittenCheckpoints:
    """A list, kept beside the checkpoints, of those that this run wrote.

    A file is recognised by name, size and time of writing: one that somebody copied over it is
    another file, and stays.

    Args:
        folder: Folder of the checkpoints.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.list = self.folder / ".written.json"

    def expect(self, name: str) -> None:
        """Note a file before it is written, so that a crash right after leaves none unknown."""
        self._save({**self._read(), name: None})

    def add(self, name: str) -> None:
        """Note a file as it is."""
        self._save({**self._read(), name: self._identity(name)})

    def remove_old(self, newest: str, keep: int) -> list[Path]:
        """Delete this run's oldest files beyond ``keep``; return those deleted.

        By time of writing, not by images seen: a run that went back to an earlier checkpoint must
        not lose its new ones to those that it left behind.
        """
        listed = self._read()
        own = [
            name
            for name, identity in listed.items()
            if (found := self._identity(name)) is not None and identity in (None, found)
        ]
        own.sort(key=lambda name: (name == newest, (self._identity(name) or [0, 0])[1], name))
        old = own[:-keep]
        for name in old:
            (self.folder / name).unlink(missing_ok=True)
        self._save({name: listed[name] for name in own if name not in old})
        return [self.folder / name for name in old]

    def remove_partial(self) -> None:
        """Delete what a killed process left of a checkpoint that it was writing."""
        for path in self.folder.glob(".*.ckpt.*.partial"):
            path.unlink(missing_ok=True)

    def _identity(self, name: str) -> list[int] | None:
        try:
            found = (self.folder / name).stat()
        except FileNotFoundError:
            return None
        return [found.st_size, found.st_mtime_ns]

    def _read(self) -> dict[str, list[int] | None]:
        try:
            listed = json.loads(self.list.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return listed if isinstance(listed, dict) else {}

    def _save(self, listed: Mapping[str, list[int] | None]) -> None:
        write_atomically(self.list, json.dumps(listed, indent=1) + "\n")
