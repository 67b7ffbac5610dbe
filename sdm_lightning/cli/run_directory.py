"""A run's own directory: ``runs/<name>/`` with checkpoints, config, metrics, samples, results."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from sdm_lightning import __version__
from sdm_lightning.errors import InputError
from sdm_lightning.evaluation.record import git_commit
from sdm_lightning.files import free_path, write_atomically
from sdm_lightning.inference.checkpoints import CHECKPOINTS, newest_checkpoint
from sdm_lightning.inference.locating import find_weights
from sdm_lightning.locking import lock


def run_folder(runs_dir: str, name: str) -> Path:
    """Return ``RUNS_DIR/NAME``.

    Raises:
        InputError: If the name is not that of one folder.
    """
    if name in ("", ".", "..") or Path(name).name != name:
        raise InputError(f"name '{name}': give the name of one folder; --runs_dir says where it is")
    return Path(runs_dir) / name


def resolve_checkpoint(command: str, wanted: str | None, run_directory: Path) -> str | None:
    """Return the checkpoint that a command starts from.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        wanted: ``--ckpt_path``: a file or URL; ``last``: the newest of this run, which must exist;
            ``auto``: the newest if there is one, else from scratch (for jobs that a cluster
            restarts); None: from scratch for ``fit``, ``last`` for the other commands. These take
            weights too, as ``find_weights`` does.
        run_directory: ``runs/<name>``.

    Raises:
        InputError: If there is no such checkpoint, or a fit from scratch would write into a run
            that has checkpoints.
    """
    if wanted is None and command == "fit":
        if any((run_directory / CHECKPOINTS).glob("*.ckpt")):
            raise InputError(
                f"{run_directory} already holds a run; continue it with --ckpt_path last, "
                "or choose another --name"
            )
        return None
    if wanted in (None, "last", "auto"):
        found = newest_checkpoint(run_directory)
        if found is None and (wanted == "last" or command != "fit"):
            raise InputError(
                f"{run_directory / CHECKPOINTS} holds no checkpoint; give one with --ckpt_path "
                "FILE, or the run's --name"
            )
        return None if found is None else str(found)
    assert wanted is not None
    is_weights = wanted.endswith(".safetensors")
    if "://" in wanted and not is_weights:
        return wanted
    if command != "fit":
        return str(find_weights(wanted))
    if is_weights or not Path(wanted).is_file():
        what = "holds weights alone" if is_weights else "does not exist"
        raise InputError(
            f"checkpoint '{wanted}' {what} (--ckpt_path FILE, last or auto; --start_from WEIGHTS)"
        )
    return wanted


@contextmanager
def only_fit(run_directory: Path) -> Iterator[None]:
    """Keep a second fit out of a run's directory; two would rotate each other's checkpoints away.

    The lock is the system's and ends with this process, however that ends. It is one that child
    processes do not share: data workers may outlive a killed fit by some seconds.

    Raises:
        InputError: If another process trains this run.
    """
    run_directory.mkdir(parents=True, exist_ok=True)
    path = run_directory / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            lock(file.fileno(), inherited=False)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "whose process id is unknown"
            raise InputError(
                f"{run_directory} is being trained by another process ({who}); choose another "
                "--name, or stop that one"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


class RunRecord(SaveConfigCallback):
    """Writes the full config into the run directory and hands it to W&B.

    Lightning's own callback writes to the logger's directory, which W&B runs share.

    ``config.yaml`` is that of the first fit; a resumed fit with another config adds
    ``config-2.yaml`` and so on, other commands write ``config-<command>.yaml``. A fit from scratch
    where an earlier one left no checkpoint sets that one's file aside.

    Args:
        parser: The command's parser.
        config: The command's settings.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        skip: Keys left out: arguments of the trainer's method, such as ``ckpt_path``, which would
            make the file unfit for another command.
        fresh: The fit starts from scratch.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        command: str = "fit",
        skip: tuple[str, ...] = (),
        fresh: bool = False,
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.command = command
        self.skip = skip
        self.fresh = fresh

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save the config; Lightning calls this on the first process only."""
        config = self.config.clone()
        for key in self.skip:
            config.pop(key, None)
        text = self.parser.dump(config, skip_none=False, skip_validation=True)
        write_config(text, Path(trainer.default_root_dir), self.command, self.fresh)
        for logger in trainer.loggers:
            if type(logger).__name__ == "WandbLogger":
                full = {**yaml.safe_load(text), "commit": git_commit(), "version": __version__}
                logger.experiment.config.update(full, allow_val_change=True)  # type: ignore[attr-defined]


def set_aside(file: Path) -> None:
    """Rename what an abandoned start of a run left: ``metrics.csv`` to ``metrics-before1.csv``."""
    if file.exists():
        file.rename(free_path(lambda n: file.with_name(f"{file.stem}-before{n}{file.suffix}")))


def write_config(text: str, directory: Path, command: str, fresh: bool = False) -> None:
    """Write a config, never over that of a fit."""
    header = f"# sdm-lightning {__version__}, commit {git_commit() or 'unknown'}\n"
    path = directory / ("config.yaml" if command == "fit" else f"config-{command}.yaml")
    number = 1
    while command == "fit" and path.exists():
        if _without_header(path.read_text(encoding="utf-8")) == _without_header(text):
            return
        if fresh:
            set_aside(path)
            break
        number += 1
        path = directory / f"config-{number}.yaml"
    write_atomically(path, header + text)


def _without_header(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))
