"""The data module: shards in, batches out, and one integer as the position of training."""

from __future__ import annotations

import logging
import warnings
from functools import cached_property
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from sdm_lightning.data.loader import StreamLoader, TrainLoader
from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.data.masks.sources import make_mask_source, mask_mix
from sdm_lightning.data.preprocess import EvalPreprocess, TrainPreprocess
from sdm_lightning.data.samples import SampleSource, ShardSource, open_samples
from sdm_lightning.data.shards.index import ShardIndex
from sdm_lightning.data.shards.reading import ShardReader
from sdm_lightning.data.stream import EvalStream, TrainStream
from sdm_lightning.errors import InputError

_log = logging.getLogger(__name__)

# The evaluation stream knows how many batches its workers make between them.
warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")


class InpaintingDataModule(pl.LightningDataModule):
    """Images with masks for training, validation, test and prediction.

    Every batch is ``{"image": (B, 3, H, W) in [-1, 1], "mask": (B, 1, H, W), 1 = known, "key": B
    strings}``; those for validation, test and prediction also have ``"padding": (B,)``, the share
    of each crop that is mirrored padding. Training is endless and exactly resumable; in the others
    every sample comes once.

    ``train``, ``val``, ``test`` and ``predict`` name shards: a folder with an ``index.json``, a
    brace range such as ``places/shard-1a2b3c4d-{000000..000099}.tar``, a URL (``https``, ``http``,
    ``s3``, ``gs``, ``gcs``, ``az``, ``abfs``, ``hf``, ``hdfs`` or ``file``; what lies in an object
    store needs fsspec's package for it), or a list of these. The last three may also name a folder,
    zip or tar of images.

    Args:
        train: Shards to train on.
        val: Validation data.
        test: Test data.
        predict: Images to inpaint.
        resolution: Side of the square crops in pixels.
        batch_size: Training samples per process and step; with ``global_batch_size``, the most
            that a process takes at once.
        global_batch_size: Training samples per step over all processes, whatever their number:
            each takes an equal share, in parts of at most ``batch_size`` whose gradients are
            accumulated. None: ``batch_size`` times the number of processes.
        eval_batch_size: The same for validation, test and prediction; default ``batch_size``.
        num_workers: Loading processes per training process, for each loader.
        seed: Seed of the training order, crops, flips and masks.
        train_masks: A mask preset; ``sample`` for the masks packed with the images, cropped and
            mirrored with them; a folder, zip or tar of masks, drawn and cropped at random; or
            several of these with weights, ``{mat512_large: 1, mat512_small: 1}``.
        val_masks: Fixed masks: a preset, ``sample`` for the masks packed with the images, or a
            folder, zip or tar of masks paired by file name.
        test_masks: The same for testing.
        predict_masks: The same for prediction.
        mask_seed: Seed of fixed masks drawn from a preset.
        mask_convention: What white means in the mask files of folders and archives: known-white
            or hole-white. Masks packed with the images are known-white in any case.
        flip: Mirror training images at random.
        shuffle_shards: Shards among whose samples a worker shuffles, held in its memory.
        max_bad_images: Undecodable training images that a worker tolerates; another image of the
            batch, or else of those shuffled with it, replaces each. Validation and test tolerate
            none.
        cache_dir: Local folder that keeps shards fetched over the network.
        verify_checksums: Compare the SHA-256 of every shard at every read.
        strict_resume: Refuse to continue with another number of processes or workers, another
            batch size, seed or data than the checkpoint's; by default, continue near the same
            place with a warning.
        prefetch_factor: Batches that each worker prepares ahead.
        pin_memory: Pin batches in memory; default: true if CUDA is available.
        persistent_workers: Keep validation workers between validations.
        multiprocessing_context: How workers start; default the system's.

    Raises:
        InputError: If a number is out of range, or ``train_masks`` has no positive weight.
    """

    def __init__(
        self,
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        predict: str | list[str] | None = None,
        resolution: int = 512,
        batch_size: int = 4,
        global_batch_size: int | None = None,
        eval_batch_size: int | None = None,
        num_workers: int = 4,
        seed: int = 0,
        train_masks: str | dict[str, float] = "mat512_large",
        val_masks: str = "mat512_large",
        test_masks: str = "mat512_large",
        predict_masks: str = "sample",
        mask_seed: int = 0,
        mask_convention: MaskConvention = "known-white",
        flip: bool = True,
        shuffle_shards: int = 2,
        max_bad_images: int = 0,
        cache_dir: str | None = None,
        verify_checksums: bool = False,
        strict_resume: bool = False,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
        persistent_workers: bool = False,
        multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("resolution", resolution, 1), ("batch_size", batch_size, 1),
            ("global_batch_size", 1 if global_batch_size is None else global_batch_size, 1),
            ("eval_batch_size", 1 if eval_batch_size is None else eval_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):  # fmt: skip
            if value < least:
                raise InputError(f"data.{name} must be at least {least}, got {value}")
        self.train, self.val, self.test, self.predict = train, val, test, predict
        self.resolution = resolution
        self.batch_size = batch_size
        self.most_at_once = batch_size
        self.global_batch_size = global_batch_size
        self.num_parts = 1  # in which the training module takes each batch
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.train_masks = mask_mix(train_masks)
        self.masks = {"val": val_masks, "test": test_masks, "predict": predict_masks}
        self.mask_seed = mask_seed
        self.mask_convention: MaskConvention = mask_convention
        self.flip = flip
        self.shuffle_shards = shuffle_shards
        self.max_bad_images = max_bad_images
        self.strict_resume = strict_resume
        self.prefetch_factor = prefetch_factor
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.persistent_workers = persistent_workers
        self.multiprocessing_context = multiprocessing_context
        self.reader = ShardReader(cache_dir=cache_dir, verify_checksums=verify_checksums)
        self.batches_done = 0
        self._resumed: dict[str, Any] | None = None

    # -- what is where -------------------------------------------------------------------------

    def _topology(self) -> tuple[int, int]:
        """Return rank and number of processes, from the trainer and from nothing else."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _require(self, split: str) -> str | list[str]:
        place: str | list[str] | None = getattr(self, split)
        if place is None:
            raise InputError(f"data.{split} is not set; name shards, for instance a folder of them")
        return place

    @cached_property
    def train_index(self) -> ShardIndex:
        """The index of the training shards, read once."""
        return ShardIndex.load(self._require("train"))

    @cached_property
    def train_preprocess(self) -> TrainPreprocess:
        """What makes training samples, with the names of all masks, read once."""
        return TrainPreprocess(
            self.resolution, self.train_masks, self.seed, self.flip, self.mask_convention
        )

    def eval_source(self, split: Literal["val", "test", "predict"]) -> SampleSource:
        """Open the samples of a split: shards, or a folder, zip or tar of images."""
        source = open_samples(self._require(split), self.reader)
        masked = isinstance(source, ShardSource) and source.index.has_masks
        if self.masks[split] == "sample" and not masked:
            raise self._no_masks(split)
        return source

    def _no_masks(self, split: str) -> InputError:
        return InputError(
            f"data.{split}: the images carry no masks; set data.{split}_masks to a folder of "
            "masks or to a preset, or pack the images with masks"
        )

    def setup(self, stage: str) -> None:
        """Read the indexes that a stage needs, so that what is missing shows before it starts."""
        if stage == "fit":
            if self.global_batch_size is not None:
                self.batch_size, self.num_parts = batch_share(
                    self.global_batch_size, self.most_at_once, self._topology()[1]
                )
            if "sample" in self.train_masks and not self.train_index.has_masks:
                raise self._no_masks("train")
            _ = self.train_index, self.train_preprocess
            if self.val is not None:
                self.eval_source("val")

    # -- loaders -------------------------------------------------------------------------------

    def _loader_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory,
            # A loader draws its workers' seed when it starts; from here, not from the global
            # generator, whose state would then depend on how often loaders were started.
            "generator": torch.Generator().manual_seed(self.seed),
        }
        if self.num_workers:
            options["prefetch_factor"] = self.prefetch_factor
            options["multiprocessing_context"] = self.multiprocessing_context
        return options

    def train_dataloader(self) -> TrainLoader:
        """Return the endless loader, at the place where training stands."""
        self._reconcile()
        rank, world_size = self._topology()
        stream = TrainStream(
            self.train_index,
            self.train_preprocess,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            shuffle_shards=self.shuffle_shards,
            max_bad_images=self.max_bad_images,
            reader=self.reader,
        )
        return TrainLoader(stream, self._position, **self._loader_options())

    def _eval_loader(self, split: Literal["val", "test", "predict"]) -> StreamLoader:
        rank, world_size = self._topology()
        masks = make_mask_source(self.masks[split], self.mask_seed, self.mask_convention)
        stream = EvalStream(
            self.eval_source(split),
            EvalPreprocess(self.resolution, masks),
            batch_size=self.eval_batch_size,
            rank=rank,
            world_size=world_size,
            num_workers=self.num_workers,
        )
        options = self._loader_options()
        if self.num_workers:
            options["persistent_workers"] = self.persistent_workers
        return StreamLoader(stream, **options)

    def val_dataloader(self) -> StreamLoader | list[Any]:
        """Return the validation loader, or none if ``val`` is not set."""
        return [] if self.val is None else self._eval_loader("val")

    def test_dataloader(self) -> StreamLoader:
        """Return the test loader."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> StreamLoader:
        """Return the prediction loader."""
        return self._eval_loader("predict")

    # -- where training stands -----------------------------------------------------------------

    def _position(self) -> int:
        # Overfitting means the same few batches in every epoch.
        overfit = getattr(self.trainer, "overfit_batches", 0) > 0
        return 0 if overfit else self.batches_done

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count a training batch as it is used; loaders prefetch more than a run has used."""
        if self.trainer is not None and self.trainer.training:
            self.batches_done += 1
        return batch

    def _conditions(self) -> dict[str, int | str]:
        return {
            "world_size": self._topology()[1],
            # Loading in this process and in one worker give the same order.
            "num_workers": max(self.num_workers, 1),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle_shards": self.shuffle_shards,
            "data": self.train_index.digest,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the batches done, the same on every process, and what they depend on.

        The resolution is for users of the weights: not every discriminator knows it.
        """
        if self.train is None:
            return {}
        done = {"batches_done": self.batches_done, "resolution": self.resolution}
        return done | self._conditions()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the position of a checkpoint; it is compared when training starts."""
        if state_dict:
            self._resumed = dict(state_dict)
            self.batches_done = int(state_dict["batches_done"])

    def _reconcile(self) -> None:
        """Compare a checkpoint's conditions with the present ones; convert the position."""
        before, self._resumed = self._resumed, None
        if before is None:
            return
        now = self._conditions()
        changed = [name for name in now if before.get(name) != now[name]]
        if not changed:
            return
        text = ", ".join(
            "other shards" if name == "data" else f"{name} {before.get(name)} -> {now[name]}"
            for name in changed
        )
        if self.strict_resume:
            raise InputError(
                f"the checkpoint's data order cannot continue with {text}; use the same, or set "
                "data.strict_resume to false to continue near the same place"
            )
        images = self.batches_done * int(before["world_size"]) * int(before["batch_size"])
        self.batches_done = images // (int(now["world_size"]) * int(now["batch_size"]))
        _log.warning(
            "data order differs from the checkpoint's (%s): continuing after about %d images, but "
            "not with exactly the images that the interrupted run would have seen", text, images,
        )  # fmt: skip


def batch_share(global_batch_size: int, most: int, processes: int) -> tuple[int, int]:
    """Share a batch out among processes.

    Args:
        global_batch_size: Samples per step over all processes.
        most: Most samples that one process takes at once.
        processes: Number of processes.

    Returns:
        Samples per process and step, and the least number of equal parts of at most ``most``.

    Raises:
        InputError: If the processes cannot share it equally.
    """
    share, rest = divmod(global_batch_size, processes)
    if rest:
        raise InputError(
            f"data.global_batch_size is {global_batch_size}, which {processes} processes cannot "
            "share equally; choose a number of devices that divides it"
        )
    parts = (n for n in range(1, share + 1) if share % n == 0 and share // n <= most)
    return share, next(parts)
