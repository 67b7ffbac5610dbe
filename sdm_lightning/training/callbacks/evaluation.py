"""The evaluator as a Lightning callback: scores outside the module, never in a checkpoint."""

import logging
import os
import time
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.evaluation.cache import RealFeatureCache
from sdm_lightning.evaluation.evaluator import Evaluation, Evaluator
from sdm_lightning.evaluation.mask_sets import verified_mask_set
from sdm_lightning.evaluation.pairs import MAX_PADDING
from sdm_lightning.evaluation.record import (
    RESERVED,
    append_record,
    make_record,
    to_json,
)
from sdm_lightning.features.extractors import build_features
from sdm_lightning.files import check_writable, sha256_of_file
from sdm_lightning.metrics.feature_distance import FeatureDistance
from sdm_lightning.metrics.lpips import LPIPS
from sdm_lightning.metrics.paired import ImageScore
from sdm_lightning.scores import quick_name
from sdm_lightning.training.callbacks.preemption import validation_cut_short
from sdm_lightning.training.distributed import all_reduce

logger = logging.getLogger(__name__)

PADDING_BATCHES = 8
"""Batches after which the padding is judged; a test of hours need not end to be refused."""


class EvaluationCallback(pl.Callback):
    """Measures what ``validation_step`` and ``test_step`` return, logs it and keeps the record.

    During training the names are ``val/psnr_hole``, ``val/fid_quick``, ...; ``sdm validate`` and
    ``sdm test`` log ``val/fid`` and ``test/fid`` and append one line to the record. The step
    outputs need ``completed``, ``image``, ``mask`` and ``key``; ``uncertainty`` with ``mean`` is
    used if it is there.

    Args:
        features: Network for FID, P-IDS, U-IDS, precision and recall; None leaves them out.
        features_weights: Local path of its weights; None looks in torch hub's cache.
        features_weights_sha256: First digits of another weights file's hash, to allow it.
        lpips: Network for LPIPS; None leaves it out.
        lpips_weights: Local path of AlexNet's weights; None looks in torch hub's cache.
        lpips_weights_sha256: First digits of another weights file's hash, to allow it.
        distance: Network for the feature distance, such as ``efficientnet-lite2``; None leaves it
            out.
        kid: KID (times 1000) and its deviation over subsets.
        ids: P-IDS and U-IDS; with fewer than 2,500 images they are left out with the reason.
        precision_recall: Precision and recall.
        few_pairs: Report P-IDS and U-IDS of fewer images too, as ``p_ids[n<2500]``.
        protocol: Names data, number and masks in the record, such as ``places36500-512-large``.
        record: File that ``validate`` and ``test`` append to, relative to the trainer's root
            directory; None writes nothing. Neither does ``trainer.fast_dev_run``, nor a part of the
            images (``trainer.limit_test_batches``, ``trainer.limit_val_batches``).
        cache: Folder for features of originals; None keeps them in memory from one validation to
            the next.
        max_padding: Largest share of the test's crops, on average, that may be mirrored padding;
            ``sdm test`` and ``sdm validate`` refuse more, since they would score mirrored pixels.
        facts: Anything else to write into the record, such as the table row of an ablation.
        extra_scores: Per-image scores of one's own.

    Raises:
        InputError: If ``facts`` has a name that the record uses itself, or an extra score one that
            is taken.
    """

    def __init__(
        self,
        features: str | None = None,
        features_weights: str | None = None,
        features_weights_sha256: str | None = None,
        lpips: Literal["alex"] | None = None,
        lpips_weights: str | None = None,
        lpips_weights_sha256: str | None = None,
        distance: str | None = None,
        kid: bool = False,
        ids: bool = True,
        precision_recall: bool = False,
        few_pairs: bool = False,
        protocol: str = "custom",
        record: str | None = "results.jsonl",
        cache: str | None = None,
        max_padding: float = MAX_PADDING,
        facts: dict[str, Any] | None = None,
        extra_scores: list[ImageScore] | None = None,
    ) -> None:
        super().__init__()
        if taken := sorted(RESERVED & set(facts or {})):
            raise InputError(
                f"evaluation.facts.{taken[0]}: the record has a {taken[0]} of its own; "
                "choose another name"
            )
        # Built now, so that missing weights are reported before a run starts, not at its end.
        self.evaluator = Evaluator(
            build_features(features, features_weights, features_weights_sha256),
            LPIPS(lpips_weights, lpips_weights_sha256) if lpips is not None else None,
            FeatureDistance(distance) if distance is not None else None,
            ids=ids,
            kid=kid,
            precision_recall=precision_recall,
            few_pairs=few_pairs,
            extra_scores=extra_scores or (),
        )
        self.protocol = protocol
        self.record = record
        self.cache_folder = cache
        self.max_padding = max_padding
        self.facts = dict(facts or {})
        self.result: Evaluation | None = None
        self._data: dict[str, dict[str, Any]] = {}
        self._caches: dict[str, RealFeatureCache] = {}
        self._started = 0.0
        self._padding = torch.zeros(2)  # sum over crops, and their number
        self._judged_after = 0

    # ------------------------------------------------------------------ start

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the evaluator."""
        self._start(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the evaluator."""
        self._start(trainer, pl_module, "test")

    def _start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        if trainer.state.fn != "fit" and self.record is not None:
            check_writable(Path(trainer.default_root_dir) / self.record)
        self.evaluator.reset()
        self._padding = torch.zeros(2)
        self._judged_after = batches_of_all(trainer, split, PADDING_BATCHES)
        self.evaluator.to(pl_module.device)
        self._started = time.monotonic()
        if split not in self._data:
            self._data[split] = describe_data(trainer, split)
        features = self.evaluator.features
        if features is not None and split not in self._caches:
            identity = {
                **self._data[split],
                "extractor": features.name,
                "weights": features.sha256,
            }
            self._caches[split] = RealFeatureCache(
                self.cache_folder, identity, features.dim, trainer.global_rank
            )
        self.evaluator.cache = self._caches.get(split)

    # ---------------------------------------------------------------- batches

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Add a batch."""
        if trainer.state.fn != "fit" and "padding" in batch:
            padding = batch["padding"]
            self._padding += torch.tensor([float(padding.sum()), len(padding)])
            if batch_idx + 1 == self._judged_after:
                self._refuse_padding(trainer)
        self.evaluator.update(
            outputs["completed"],
            outputs["image"],
            outputs["mask"],
            outputs["key"],
            outputs.get("uncertainty"),
            outputs.get("mean"),
            allow_not_finite=trainer.state.fn == "fit",
        )

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def _refuse_padding(self, trainer: pl.Trainer) -> None:
        """Judge the padding of all processes together: one that raises alone lets others wait."""
        own = self._padding.to(trainer.strategy.root_device)
        total, count = all_reduce(trainer, own, "sum").tolist()
        share = total / max(count, 1)
        if share > self.max_padding:
            size = getattr(getattr(trainer, "datamodule", None), "resolution", None)
            raise InputError(
                f"{share:.0%} of the crops of {size}x{size} is mirrored padding (mean of "
                f"{count:.0f} images; evaluation.max_padding is {self.max_padding:.0%}): "
                f"give images whose shorter side has {size} pixels, or a smaller data.resolution"
            )

    # -------------------------------------------------------------------- end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute, log and record the scores."""
        if not trainer.sanity_checking:
            self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute, log and record the scores."""
        self._finish(trainer, pl_module, "test")

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        fitting = trainer.state.fn == "fit"
        if validation_cut_short(trainer):
            return  # a score of some of the images would look like one of all
        self._refuse_padding(trainer)
        self.result = self.evaluator.compute()
        for name, reason in self.result.refused.items():
            if trainer.is_global_zero and not fitting:
                logger.warning("%s is not reported: %s", name, reason)
        if (bad := self.result.num_not_finite) and trainer.is_global_zero:
            logger.warning(
                "%d of %d validation results hold values that are not finite; the scores are NaN",
                bad, self.result.num_images,
            )  # fmt: skip
        values = {
            f"{stage}/{quick_name(name) if fitting else name}": value
            for name, value in self.result.metrics.items()
        }
        # All processes hold the same numbers; syncing them once per epoch costs nothing and keeps
        # Lightning's advice quiet.
        pl_module.log_dict(values, on_step=False, on_epoch=True, sync_dist=True)
        if self.evaluator.cache is not None:
            self.evaluator.cache.save()
        if trainer.is_global_zero and not fitting:
            if _leaves_out_images(trainer, stage):
                logger.warning("a part of the %s images: not recorded", stage)
                return
            record = self._record(trainer, pl_module, stage)
            if self.record is not None:
                append_record(Path(trainer.default_root_dir) / self.record, record)
            _publish(trainer, stage, record)

    def _record(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str
    ) -> dict[str, Any]:
        assert self.result is not None
        return make_record(
            self.result,
            self.protocol,
            time.monotonic() - self._started,
            command="validate" if stage == "val" else "test",
            checkpoint=_checkpoint(trainer),
            device=str(pl_module.device),
            processes=trainer.world_size,
            precision=str(trainer.precision),
            **_model_facts(pl_module),
            data=self._data[stage],
            **self.facts,
        )


def _leaves_out_images(trainer: pl.Trainer, stage: str) -> bool:
    """Return whether the trainer was told to leave out images: a table would show the record."""
    limit = trainer.limit_test_batches if stage == "test" else trainer.limit_val_batches
    # As an int, 1 is one batch; as a float, all of them.
    limited = isinstance(limit, int) or limit < 1.0
    return bool(trainer.fast_dev_run) or limited  # type: ignore[attr-defined]


def _checkpoint(trainer: pl.Trainer) -> dict[str, str] | None:
    path = trainer.ckpt_path
    if path is None or not os.path.isfile(path):
        return None
    return {"path": str(path), "sha256": sha256_of_file(path)}


def describe_data(trainer: pl.Trainer, split: str) -> dict[str, Any]:
    """Describe an evaluation set, as far as its data module does: manifest, crop, masks."""
    data = getattr(trainer, "datamodule", None)
    if data is None:
        return {}
    facts: dict[str, Any] = {"path": getattr(data, split, None)}
    for name in ("resolution", "mask_seed", "mask_convention"):
        facts[name] = getattr(data, name, None)
    facts["crop"] = "center"
    facts["masks"] = getattr(data, "masks", {}).get(split)
    if isinstance(facts["masks"], str):
        mask_set = verified_mask_set(facts["masks"], facts["mask_convention"])
        if mask_set is not None:
            facts["mask_set"] = mask_set["digest"]
    if hasattr(data, "eval_source"):
        source = data.eval_source(split)
        facts["manifest"] = getattr(getattr(source, "index", None), "digest", None)
    return facts


def batches_of_all(trainer: pl.Trainer, split: str, most: int) -> int:
    """Count the batches, up to ``most``, that every process is sure to have; all have to ask."""
    testing = split == "test"
    loaders: Any = trainer.test_dataloaders if testing else trainer.val_dataloaders
    limits = trainer.num_test_batches if testing else trainer.num_val_batches
    try:
        lengths = [len(loader) for loader in (loaders if isinstance(loaders, list) else [loaders])]
    except TypeError:  # not known beforehand
        lengths = [0]
    own = torch.tensor(min(most, *limits, *lengths), device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(own, reduce_op="min"))


def _publish(trainer: pl.Trainer, stage: str, record: dict[str, Any]) -> None:
    """Send the record to loggers that keep summaries and tables (W&B)."""
    rows = [[*name.partition("/")[::2], value] for name, value in record["metrics"].items()]
    for run_logger in trainer.loggers:
        summary = getattr(getattr(run_logger, "experiment", None), "summary", None)
        if summary is not None and hasattr(summary, "update"):
            summary.update({"record": to_json(record)})
        if hasattr(run_logger, "log_table"):
            run_logger.log_table(f"{stage}/table", ["metric", "protocol", "value"], rows)


def _model_facts(pl_module: pl.LightningModule) -> dict[str, Any]:
    """Collect what the numbers depend on in the model, as far as the module has it."""
    diffusion = getattr(pl_module, "diffusion", None)
    images_seen = getattr(pl_module, "images_seen", None)
    parameters = sum(p.numel() for p in getattr(pl_module, "generator", pl_module).parameters())
    scored = "ema" if hasattr(pl_module, "generator_ema") else "raw"
    return {
        "parameters": getattr(pl_module, "loaded_parameters", scored),
        "num_parameters": parameters,
        "num_iterations": getattr(pl_module, "test_iterations", None),
        "train_iterations": getattr(pl_module, "random_iterations", None)
        or getattr(diffusion, "num_iterations", None),
        "diffusion": type(diffusion).__name__,
        "alpha": getattr(diffusion, "alpha", None),
        "schedule": type(getattr(diffusion, "schedule", None)).__name__,
        "repredict": getattr(diffusion, "repredict", None),
        "uncertainty_scale": getattr(diffusion, "uncertainty_scale", None),
        "uncertainty_channels": getattr(diffusion, "uncertainty_channels", None),
        "seed": getattr(pl_module, "seed", None),
        "training_seed": getattr(pl_module, "training_seed", None),
        "images_seen": int(images_seen) if isinstance(images_seen, int | torch.Tensor) else None,
    }
