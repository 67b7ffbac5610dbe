"""Loggers of a run: their folder, and the labels of a W&B run."""

import os
import uuid
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from sdm_lightning.files import write_atomically
from sdm_lightning.training.distributed import is_first_process


def place_loggers(settings: Namespace, run_directory: Path, command: str) -> None:
    """Point loggers without a folder to the run directory, and label W&B runs.

    Settings of the user, in configs or in W&B's variables, stay. A W&B run gets the project
    ``sdm-lightning``, the run's name, its table row as group (seeds are drawn together), the
    command as job type and the tags of ``run_tags``. Under W&B's own agent, where training and
    test are one run, the job type is left alone. An online run whose fit resumes stays one W&B run.

    Args:
        settings: The command's settings; their ``trainer.logger`` is changed.
        run_directory: ``runs/<name>``.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
    """
    loggers = settings.trainer.logger
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        arguments = logger.get("init_args") if isinstance(logger, Namespace) else None
        if arguments is None:
            continue
        is_wandb = logger.class_path.endswith("WandbLogger")
        if "save_dir" in arguments and arguments.save_dir in (None, "", "."):
            # W&B's own process resolves paths where it was first started, perhaps elsewhere.
            arguments.save_dir = str(run_directory.absolute() if is_wandb else run_directory)
            run_directory.mkdir(parents=True, exist_ok=True)
        if is_wandb:
            label_wandb_run(arguments, settings, command)
            if command == "fit":
                keep_wandb_id(arguments, run_directory / "wandb-id.txt", bool(settings.ckpt_path))


def label_wandb_run(arguments: Namespace, settings: Namespace, command: str) -> None:
    """Fill in what the user left open: project, name, group, job type, tags."""
    facts = _facts(settings)
    from_environment = [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
    tags = list(dict.fromkeys([*run_tags(settings), *from_environment]))
    project = os.environ.get("WANDB_PROJECT", "sdm-lightning")
    labels: dict[str, Any] = {"project": project, "tags": tags}
    if "WANDB_NAME" not in os.environ:
        labels["name"] = settings.name
    if "table" in facts and "row" in facts and "WANDB_RUN_GROUP" not in os.environ:
        labels["group"] = f"{facts['table']}/{facts['row']}"
    if "WANDB_RUN_ID" not in os.environ:
        labels["job_type"] = command
    for key, value in labels.items():
        if arguments.get(key) is None:
            arguments[key] = value


def keep_wandb_id(arguments: Namespace, file: Path, resumed: bool) -> None:
    """Let an online fit that resumes go on in the W&B run of its first start, kept in a file."""
    offline = arguments.get("offline") or os.environ.get("WANDB_MODE", "online") != "online"
    given = arguments.get("id") or arguments.get("version") or "WANDB_RUN_ID" in os.environ
    if offline or given or not is_first_process():
        return
    if not (resumed and file.is_file()):
        write_atomically(file, uuid.uuid4().hex[:8])
    arguments.id = file.read_text()


def run_tags(settings: Namespace) -> list[str]:
    """List table, row, setting, scale and seed of a run, as far as they are set.

    Examples:
        ``["table1", "table1/A", "small", "seed0"]``
    """
    facts = _facts(settings)
    tags = []
    if table := facts.get("table"):
        tags.append(str(table))
        tags += [f"{table}/{facts['row']}"] if "row" in facts else []
    tags += [str(facts[key]) for key in ("setting", "scale") if key in facts]
    return [*tags, f"seed{settings.seed_everything}"]


def _facts(settings: Namespace) -> dict[str, Any]:
    return dict(settings.get("evaluation.facts") or {})
