"""The command ``sdm finetune``: photos to shards, shards to a model, through ``sdm fit``."""

import copy
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from sdm_lightning.errors import PREEMPTED, InputError
from sdm_lightning.files import write_atomically
from sdm_lightning.finetuning.defaults import MIN_HELD_OUT, FinetuneDefaults, defaults_for
from sdm_lightning.finetuning.photos import find_photos, make_shards, split_photos
from sdm_lightning.shipped import find_config

SCORE = "val/kid_quick[efficientnet-lite2]"
BATCH = 8
VALIDATIONS = 20
"""Over the whole of a run."""

R1_GAMMA = 0.5
"""For discriminators that need R1; the one of configs/model/demo.yaml does without."""

PATIENCE = 5
"""Validations without a better KID after which the run stops."""


def finetune(
    photos: str,
    name: str = "finetuned",
    start_from: str = "demo",
    learning_rate: float | None = None,
    max_images: int | None = None,
    resolution: int | None = None,
    minutes: float | None = None,
    licence: str | None = None,
    config: list[str] | None = None,
    runs_dir: str = "runs",
    device: str = "auto",
    seed: int = 0,
) -> None:
    """Fine-tune a model on a folder of photos.

    Cuts windows of all scales, holds out a fifth of the photos by file hash, trains from given
    weights with settings for that many photos, and keeps the state with the best KID on the
    held-out photos; training stops when KID has not improved for a while. The result is
    RUNS_DIR/NAME/NAME.safetensors. After an interruption, run the same command again to continue.

    Args:
        photos: Folder of photos, searched in depth.
        name: Name of the run.
        start_from: Weights: a packaged name, a .safetensors or .ckpt file, runs/NAME, USER/REPO.
            demo is trained at 64 pixels, in less than half the time of photos-128.
        learning_rate: Learning rate of both networks; default: chosen by the number of photos.
        max_images: Training images; default: chosen by the number of photos.
        resolution: Side of the training crops; default: as the weights were trained.
        minutes: Stop training after this many minutes; the run is then finished. After an
            interruption they count anew.
        licence: Licence of the result, kept in its file; default: that of the starting weights.
        config: Further config files of sdm fit, for other losses, batch size or devices.
        runs_dir: Folder of all runs.
        device: cpu, cuda, or auto.
        seed: Seed of order, masks and noise.

    Raises:
        InputError: If the photos, the weights or an option cannot be used.
        SystemExit: With the status of sdm fit, if that ends with another than 0.
    """
    from sdm_lightning.cli.configs import max_time
    from sdm_lightning.cli.run_directory import run_folder
    from sdm_lightning.cli.trainer import run_trainer
    from sdm_lightning.features.networks import packaged_weights
    from sdm_lightning.inference.checkpoints import CHECKPOINTS
    from sdm_lightning.inference.export import export_model
    from sdm_lightning.inference.weights import load_generator

    positive = {"max_images": max_images, "minutes": minutes, "learning_rate": learning_rate}
    for key, value in positive.items():
        if value is not None and value <= 0:
            raise InputError(f"{key} is {value}; it must be more than 0")
    run = run_folder(runs_dir, name)
    result = run / f"{name}.safetensors"
    if result.is_file():
        print(
            f"{result}: this run is finished; to train on from it: --start_from {result} and "
            "another --name"
        )
        _say_how(result)
        return
    # A checkpoint of another command would be taken for the state to go on from.
    traces = [run / "config.yaml", *(run / CHECKPOINTS).glob("*.ckpt")]
    if not (run / "finetune.yaml").is_file() and any(path.is_file() for path in traces):
        raise InputError(f"{run} holds a run of another command; choose another --name")
    network, info = load_generator(start_from)
    info.build_diffusion()  # refuses what is not trusted: a config builds whatever it names
    side = resolution or info.resolution
    if side is None:
        raise InputError(f"{start_from}: does not say its resolution; give --resolution")
    if side % (stride := int(network.stride)):  # type: ignore[arg-type]
        raise InputError(f"resolution {side} is not divisible by the generator's stride {stride}")

    found = find_photos(photos)
    train, held_out = split_photos(found)
    defaults = defaults_for(len(train), side, max_images, learning_rate)
    print(
        f"{len(found)} photos: {len(train)} to train on, {len(held_out)} held out; "
        f"{defaults.max_images:,} training images of {side}x{side}, learning rate "
        f"{defaults.learning_rate:g}, from {start_from}"
    )
    if not held_out:
        print(
            f"fewer than {MIN_HELD_OUT} photos to hold out: KID is not computed and training does "
            "not stop early"
        )
    if config is None:  # which may name other networks
        networks = ["efficientnet-lite0", *(["efficientnet-lite2"] if held_out else [])]
        packaged_weights(*networks)  # the losses' and the scores', before the windows are made
    make_shards(run / "data", train, held_out, side, defaults)

    settings = _settings(start_from, info, run / "data", bool(held_out), side, defaults)
    write_atomically(run / "finetune.yaml", yaml.safe_dump(settings, sort_keys=False))
    words = ["fit", "--config", str(run / "finetune.yaml")]
    words += [word for file in config or [] for word in ("--config", file)]
    words += ["--name", name, "--runs_dir", runs_dir, "--start_from", start_from]
    words += ["--trainer.accelerator", {"cuda": "gpu"}.get(device, device)]
    words += ["--seed_everything", str(seed), "--ckpt_path", "auto"]
    if minutes is not None:
        words += ["--trainer.max_time", max_time(minutes)]
    try:
        first = run_trainer(words, {"fit": "Train a model"})
    except SystemExit as end:
        if end.code in (PREEMPTED, 130):
            print("Stopped; run the same sdm finetune command again to continue", file=sys.stderr)
        raise
    if not first:
        return

    best = run / "checkpoints" / "best.ckpt"
    export_model(
        str(best if best.is_file() else run),
        str(result),
        licence=licence or info.licence,
        data=f"{len(train)} own photos, starting from {start_from} ({info.data})",
        discriminator=True,
    )
    if best.is_file():
        # Files of one's own may validate otherwise: then the end is not judged.
        interval = settings["checkpoint"]["every_n_batches"] * BATCH if config is None else 0
        _say_best(best, result, interval)
    _say_how(result)


def _settings(
    start: str, info: Any, data: Path, held_out: bool, side: int, defaults: FinetuneDefaults
) -> dict[str, Any]:
    """Build the run's config: losses of configs/model/demo.yaml, networks of the weights."""
    from sdm_lightning.inference.discriminators import load_discriminator
    from sdm_lightning.inference.trusted import built_network

    shipped = yaml.safe_load(Path(find_config("configs/model/demo.yaml")).read_text("utf-8"))
    model = shipped["model"]
    model["generator"], model["diffusion"] = copy.deepcopy((info.generator, info.diffusion))
    model["test_iterations"] = (info.diffusion.get("init_args") or {}).get("num_iterations", 4)
    discriminator = copy.deepcopy(load_discriminator(start)[1])
    if discriminator is not None:
        built_network(discriminator, start)  # refuses what is not trusted, as for the diffusion
        # It follows data.resolution.
        (discriminator.get("init_args") or {}).pop("resolution", None)
        model["discriminator"] = discriminator
        if not discriminator["class_path"].endswith(".FeatureDiscriminator"):
            model["losses"]["r1_gamma"] = R1_GAMMA
    for optimizer in ("optimizer_g", "optimizer_d"):
        model[optimizer]["lr"] = defaults.learning_rate
    model["average"] = {"half_life_images": defaults.half_life_images, "ramp_up": None}
    family = "mat512" if side >= 512 else "mat256"
    every = max(defaults.max_images // BATCH // VALIDATIONS, 1)
    settings: dict[str, Any] = {
        "model": model,
        "data": {
            "train": str(data / "train"),
            "resolution": side,
            "batch_size": BATCH,
            "eval_batch_size": 32,
            "num_workers": 1,
            "train_masks": {f"{family}_large": 2, f"{family}_small": 1},
            "val_masks": f"{family}_large",
        },
        "trainer": {"devices": 1, "precision": "32-true", "log_every_n_steps": 10},
        "checkpoint": {"every_n_batches": every, "keep": 2},
        "budget": {"max_images": defaults.max_images},
    }
    if held_out:
        settings["data"]["val"] = str(data / "val")
        settings["trainer"]["val_check_interval"] = every
        settings["trainer"]["callbacks"] = [
            {
                "class_path": "lightning.pytorch.callbacks.EarlyStopping",
                "init_args": {
                    "monitor": SCORE, "mode": "min", "patience": PATIENCE, "verbose": True,
                },
            }
        ]  # fmt: skip
        settings["checkpoint"] |= {"monitor": SCORE}
        settings["evaluation"] = {"features": "efficientnet-lite2", "kid": True, "ids": False}
    else:
        settings["trainer"]["limit_val_batches"] = 0
    return settings


def _say_best(best: Path, result: Path, interval: int) -> None:
    """Say how good the best state is, and whether the score still improved at the end.

    Args:
        best: The checkpoint, with its score beside it.
        result: Weights to train on from.
        interval: Training images between two validations; 0 if that is not known.
    """
    found = json.loads(best.with_suffix(".json").read_text("utf-8"))
    newest = max((int(path.stem) for path in best.parent.glob("[0-9]*.ckpt")), default=0)
    seen = found["images_seen"]
    print(f"best state: {found['score']} {found['value']:.4g}, {seen:,} images seen")
    if newest - seen < interval:
        print(
            "It was the last one measured, and more training may be better still: --start_from "
            f"{result} and another --name"
        )


def _say_how(result: Path) -> None:
    weights = shlex.quote(str(result))
    print(f"\nFill holes with it:\n  sdm inpaint photo.jpg mask.png --weights {weights}")
