"""``sdm fit|validate|test|predict``: Lightning's command line over this package's modules."""

import copy
import logging
import os
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.fabric.utilities.seed import max_seed_value
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sdm_lightning.cli.configs import (
    LINKED,
    locate_config_files,
    read_config_files,
    refuse_linked,
)
from sdm_lightning.cli.errors import explain, keys_of_class, parse_clearly
from sdm_lightning.cli.faults import explain_fault
from sdm_lightning.cli.loggers import place_loggers
from sdm_lightning.cli.run_directory import (
    RunRecord,
    only_fit,
    resolve_checkpoint,
    run_folder,
    set_aside,
)
from sdm_lightning.data.datamodule import InpaintingDataModule
from sdm_lightning.errors import InputError, one_line
from sdm_lightning.evaluation.printing import table_lines
from sdm_lightning.signals import leave_when_signalled
from sdm_lightning.training.callbacks import (
    ImageBudget,
    ImageProgressBar,
    PredictionWriter,
    Preemption,
    SampleGrid,
)
from sdm_lightning.training.callbacks.checkpoint import RunCheckpoint
from sdm_lightning.training.callbacks.evaluation import EvaluationCallback
from sdm_lightning.training.callbacks.starting import StartingWeights
from sdm_lightning.training.checkpointing import AtomicCheckpointIO
from sdm_lightning.training.checks import refuse_unfit_precision
from sdm_lightning.training.distributed import is_first_process
from sdm_lightning.training.loggers import MetricsFile
from sdm_lightning.training.module import SDMModule
from sdm_lightning.working_directory import import_from_working_directory

CALLBACKS: dict[str, type[pl.Callback]] = {
    "budget": ImageBudget,
    "checkpoint": RunCheckpoint,
    "evaluation": EvaluationCallback,
    "samples": SampleGrid,
    "predictions": PredictionWriter,
    "preemption": Preemption,
    "progress": ImageProgressBar,
}
"""Always active, each configured under its own key; ``trainer.callbacks`` adds more."""


class SDMCommandLine(LightningCLI):
    """Lightning's command line with this project's defaults, one-line errors and run directory."""

    def __init__(
        self, words: list[str], descriptions: dict[str, str], resources: ExitStack
    ) -> None:
        self.resources = resources
        self.prints_scores = False
        words = locate_config_files(words)
        self.files = read_config_files(words)
        refuse_linked(words, self.files)
        self.command = words[0]
        self.flags = {word.partition("=")[0] for word in words}
        # Abbreviations would let a mistyped key pass for another.
        exact = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            SDMModule,
            InpaintingDataModule,
            args=words,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=RunRecord,
            parser_kwargs={
                **exact,
                self.command: {"description": descriptions[self.command], **exact},
            },
            trainer_defaults={
                "max_epochs": -1,
                "check_val_every_n_epoch": None,
                "val_check_interval": 1000,
                "use_distributed_sampler": False,
            },
        )

    # ------------------------------------------------------------------ parsing

    def subcommands(self) -> dict[str, set[str]]:
        """List the chosen command alone: building each parser takes a third of a second."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Build Lightning's parser, without a usage text of two hundred lines."""
        kwargs.setdefault(
            "usage", "sdm COMMAND --config FILE [--config FILE ...] [--KEY VALUE ...]"
        )
        return super().init_parser(**kwargs)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed, which is a number: data and masks are drawn from it too."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=self.seed_everything_default,
            help="Seed of weights, order, masks and noise.",
        )

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        for action in parser._actions:
            if action.dest == "ckpt_path":  # Lightning's text is about its own values
                action.help = (
                    "Checkpoint to continue from: a file or URL, last (newest of this run; an "
                    "error if none) or auto (newest, else start anew)."
                    if subcommand == "fit"
                    else "Checkpoint to use: last (newest of this run), a file or URL; or "
                    "weights: a .safetensors file, a packaged name, the directory of a run, or "
                    "USER/REPO."
                )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add run name, links, and callbacks with keys of their own."""
        parser.add_argument("--name", default="sdm", help="Name of the run: RUNS_DIR/NAME/.")
        parser.add_argument("--runs_dir", default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--start_from",
            type=str | None,
            default=None,
            help="Weights that a new fit starts from: a packaged name, a .safetensors or .ckpt "
            "file, the directory of a run, or USER/REPO. A run that continues (--ckpt_path) takes "
            "its own checkpoint.",
        )
        for key, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
        for target, source in LINKED.items():
            parser.link_arguments(source, target)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse as Lightning does, with errors in one line."""
        assert isinstance(args, list)
        self.config = parse_clearly(parser, args, self.files)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let a checkpoint's settings override the command line's."""

    def _set_seed(self) -> None:
        """Seed as Lightning does, with errors in one line."""
        seed = self.settings.seed_everything
        if not 0 <= seed <= max_seed_value:
            raise InputError(
                f"seed_everything is {seed}; choose a number from 0 to {max_seed_value}"
            )
        super()._set_seed()

    # ------------------------------------------------------------------ building

    @property
    def settings(self) -> Namespace:
        """Settings of the chosen command."""
        settings: Namespace = self.config[self.config.subcommand]
        return settings

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot work, before anything is built."""
        command, settings = self.config.subcommand, self.settings
        trainer = settings.trainer
        root = trainer.default_root_dir or run_folder(settings.runs_dir, settings.name)
        self.run_directory = Path(root)
        refuse_trainer_settings(trainer)
        if command == "fit" and is_first_process():
            self.resources.enter_context(only_fit(self.run_directory))
        settings.ckpt_path = resolve_checkpoint(command, settings.ckpt_path, self.run_directory)
        if settings.weights_only is None:
            settings.weights_only = True
        fresh = command == "fit" and settings.ckpt_path is None
        if fresh and is_first_process():
            set_aside(self.run_directory / "metrics.csv")
        if command == "predict" and settings.return_predictions is None:
            settings.return_predictions = False  # they go to disk; memory would not hold a data set
        if command == "validate" and "--trainer.limit_val_batches" not in self.flags:
            trainer.limit_val_batches = 1.0  # a config's limit is for validations during training
        method_arguments = tuple(self._subcommand_method_arguments[command])
        self.save_config_kwargs = {"command": command, "skip": method_arguments, "fresh": fresh}

    def instantiate_classes(self) -> None:
        """Build as Lightning does, with loggers in the run directory and errors in one line."""
        settings = self.settings
        as_written = copy.deepcopy(settings.trainer.logger)
        place_loggers(settings, self.run_directory, self.config.subcommand)
        self.parser.add_instantiator(self._built, object)
        try:
            super().instantiate_classes()
        except InputError:
            raise
        except (ValueError, MisconfigurationException) as error:
            raise InputError(explain(str(error))) from error
        # The saved config must not lead another run into this one's directory.
        settings.trainer.logger = as_written

    def _built(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        """Build a class, and say under which key where it refuses its arguments."""
        try:
            return class_type(*args, **kwargs)
        except Exception as error:
            key = next(keys_of_class(self.settings.as_dict(), class_type), None)
            if key is None or explain_fault(error) is not None:
                raise
            said = str(error) if isinstance(error, ValueError) else one_line(error)
            raise InputError(f"{key} ({class_type.__name__}): {said}") from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Fill in strategy, checkpoint writer, logger and directory."""
        trainer = self._get(self.config_init, "trainer")
        plugins = trainer.get("plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins])]
        kwargs["plugins"].append(AtomicCheckpointIO())
        if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
            # Not within torchrun, which tells ranks by itself. The launch script requeues by exit
            # status; Lightning's own way saves mid-step.
            kwargs["plugins"].append(SLURMEnvironment(auto_requeue=False))
        if trainer["strategy"] == "auto" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            kwargs["strategy"] = "ddp"  # torchrun's processes, whatever trainer.devices says
        if trainer["logger"] in (None, True):
            kwargs["logger"] = MetricsFile(str(self.run_directory))
        kwargs["default_root_dir"] = str(self.run_directory)
        return super().instantiate_trainer(**kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Any]) -> pl.Trainer:
        """Leave out callbacks that a switch of the trainer turns off or the user's bar replaces."""
        own = config.get("callbacks") or []
        own = own if isinstance(own, list) else [own]
        has_bar = any(isinstance(callback, ProgressBar) for callback in own)
        if config.get("enable_progress_bar") is False or has_bar:
            callbacks = [c for c in callbacks if not isinstance(c, ImageProgressBar)]
        if config.get("enable_checkpointing") is False:
            callbacks = [c for c in callbacks if not isinstance(c, RunCheckpoint)]
        start = self.settings.start_from
        if self.config.subcommand == "fit" and start and self.settings.ckpt_path is None:
            callbacks = [*callbacks, StartingWeights(start)]
        return super()._instantiate_trainer(config, callbacks)

    # ------------------------------------------------------------------ running

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if "verbose" in kwargs:
            # Lightning's table is made by rich, which takes fid[random-conv]'s brackets for markup.
            self.prints_scores, kwargs["verbose"] = kwargs["verbose"], False
        return kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except MisconfigurationException as error:
            raise InputError(str(error)) from error
        except ValueError as error:
            # Lightning raises a plain ValueError for this setting.
            if "`val_check_interval`" not in str(error):
                raise
            raise InputError(str(error).strip()) from error
        except SystemExit as error:
            # Lightning ends so where it was interrupted outside of training.
            raise (KeyboardInterrupt if error.code == 1 else error) from None
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            scores = callback.result if isinstance(callback, EvaluationCallback) else None
            if scores is not None and self.prints_scores and self.trainer.is_global_zero:
                print("\n".join(table_lines(scores, callback.protocol)))
            if isinstance(callback, Preemption) and callback.requested:
                self._leave(callback.status)

    def _leave(self, status: int) -> None:
        """End with a status, on the process that the launch script watches."""
        started_by_us = isinstance(
            getattr(self.trainer.strategy, "cluster_environment", None), LightningEnvironment
        )
        if self.trainer.is_global_zero or not started_by_us:
            raise SystemExit(status)
        # Lightning's launcher takes any other status of a process that it started for a crash, and
        # kills the first one while it may still be writing.


def run_trainer(words: list[str], descriptions: dict[str, str]) -> bool:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        words: The command and its options.
        descriptions: One line of help for each command.

    Returns:
        Whether this is the first of the processes that ran it, which alone may write more.
    """
    quieten()
    wandb_mode = os.environ.get("WANDB_MODE")
    import_from_working_directory()  # so that --model.generator my_file.MyGenerator is found
    try:
        with ExitStack() as resources:
            if words[0] == "fit":
                resources.enter_context(leave_when_signalled())
            SDMCommandLine(words, descriptions, resources)
        return is_first_process()
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            # An open run would swallow the next command's values.
            wandb.finish(exit_code=int(sys.exc_info()[0] is not None))
        # WandbLogger(offline=True) sets it, and would keep the next command offline too.
        os.environ.pop("WANDB_MODE", None)
        if wandb_mode is not None:
            os.environ["WANDB_MODE"] = wandb_mode


def quieten() -> None:
    """Silence warnings of libraries that are wrong or useless here."""
    for text in (
        ".*does not have many workers.*",
        ".*Couldn't infer the batch indices.*",
        ".*`training_step` returned `None`.*",
        ".*manual optimization.*checkpoint.*",
        ".*Experiment logs directory .* exists and is not empty.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*Found .* module.s. in eval mode at the start of training.*",  # the averaged generator
        ".*Total length of .* across ranks is zero.*",  # no validation images
    ):
        warnings.filterwarnings("ignore", text)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "💡" not in record.getMessage()
    )


def refuse_trainer_settings(trainer: Namespace) -> None:
    """Refuse trainer settings that would train wrongly.

    Raises:
        InputError: With what to set instead.
    """
    refuse_unfit_precision(trainer.precision)
    strategy = trainer.strategy
    if isinstance(strategy, Namespace):
        # Processes that are not started by a command of their own cannot send anything back.
        unfit = strategy.get("init_args.start_method", "popen") != "popen"
    else:
        unfit = str(strategy).startswith(("ddp_fork", "ddp_spawn", "ddp_notebook"))
    if unfit:
        raise InputError(
            "trainer.strategy: processes that are forked or spawned cannot run sdm; use ddp, with "
            "trainer.devices"
        )
    if trainer.gradient_clip_val is not None:
        raise InputError("trainer.gradient_clip_val is not for GANs; use model.gradient_clip")
    if trainer.accumulate_grad_batches not in (None, 1):
        raise InputError(
            "trainer.accumulate_grad_batches is not for GANs; use data.global_batch_size"
        )
