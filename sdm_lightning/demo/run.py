"""The command ``sdm demo``: the whole way once, on real photos, through the user's own commands.

It makes the pictures, then calls ``sdm shards``, ``sdm fit``, ``sdm test`` and ``sdm inpaint`` as
a shell would, and writes everything that the report needs into its folder. The report itself is
built from those files alone (``sdm_lightning.demo.report``).
"""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdm_lightning.cli.configs import max_time
from sdm_lightning.errors import InputError
from sdm_lightning.files import free_path, write_atomically

SHOWN = 8


def run_demo(
    output: str = "runs/demo",
    start: Literal["pretrained", "scratch"] = "pretrained",
    minutes: float = 2.0,
    num_train: int = 6000,
    num_test: int = 100,
    seed: int = 0,
) -> None:
    """Pack real photos, train, test, inpaint unseen photos, and write a report to look at.

    Runs on a laptop without a GPU or the internet; uses a GPU if there is one. The photos are those
    inside scikit-image, scikit-learn and matplotlib; four are held out whole for testing. Run it
    again to train once more from the start into a new run folder; earlier runs are kept.

    Args:
        output: Folder for everything; the report is report.html in it.
        start: Initial weights: pretrained (those in this package) or scratch (random).
        minutes: Training time. Use at least 30 with --start scratch.
        num_train: Training pictures to make.
        num_test: Test pictures to make, from the held-out photos.
        seed: Seed of training pictures, weights and order.

    Raises:
        InputError: If minutes is not positive, the packaged weights or the feature networks (extra
            ``features``) are missing, or a command fails.
    """
    from sdm_lightning.demo.photos import make_demo_images
    from sdm_lightning.features.networks import packaged_weights
    from sdm_lightning.inference import load_generator
    from sdm_lightning.inference.locating import find_weights

    if minutes <= 0:
        raise InputError(f"minutes is {minutes}; it must be more than 0")
    if start == "pretrained":
        find_weights("demo")
    packaged_weights("efficientnet-lite0", "efficientnet-lite2")  # the losses' and the scores'
    began = time.perf_counter()
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    shell = _Shell()

    _say(1, "Photos: windows of the training photos, dead leaves, and held-out test windows")
    images = folder / f"images-{num_train}-{num_test}-{seed}"
    make_demo_images(images, num_train=num_train, num_test=num_test, seed=seed)
    print(f"{images}: {num_train} training and {num_test} test pictures of 64x64")

    _say(2, "Shards: packed once, read in order of (seed, position)")
    shards = folder / f"shards-{num_train}-{num_test}-{seed}"
    shell.sdm("shards", images / "train", shards / "train")
    shell.sdm("shards", images / "test", shards / "test", "--shuffle", "false")

    name = free_path(lambda number: folder / f"run-{number}").name
    whence = "from the weights in this package" if start == "pretrained" else "from random weights"
    _say(3, f"Training: {minutes:g} minutes, {whence}, by the same command as on a cluster")
    data = [f"--data.train={shards / 'train'}"]
    data += [f"--data.{split}={shards / 'test'}" for split in ("val", "test")]
    configs = _configs("model/demo.yaml", "data/demo.yaml", "trainer/cpu.yaml")
    place = ("--runs_dir", folder, "--name", name)
    options: list[Any] = ["--trainer.accelerator", "auto", "--trainer.max_time", max_time(minutes)]
    options += ["--seed_everything", seed]
    if start == "pretrained":
        options += ["--start_from", "demo"]
        # Minutes must not undo what hours found: small steps, and an average that moves slowly.
        options += ["--model.optimizer_g.lr", 2e-4, "--model.optimizer_d.lr", 2e-4]
        options += ["--model.average.half_life_images", 10_000]
    shell.sdm("fit", *configs, *data, *place, *options)

    _say(4, "Test: held-out windows, fixed masks, one record")
    shell.sdm("test", "--config", folder / name / "config.yaml", *place)

    checkpoint = folder / name / "checkpoints" / "last.ckpt"
    _say(5, "The same windows and masks for OpenCV's methods and a mean-colour fill")
    comparison = _compare(folder / name, checkpoint, seed)

    _say(6, "Inpainting the held-out photos at their full size")
    _write_photos(folder / name)
    photos, masks = folder / name / "photos", folder / name / "photo-masks"
    target = ("--output", folder / name / "inpainted")
    shell.sdm("inpaint", photos, masks, *target, "--weights", checkpoint)

    _say(7, "Report")
    facts: dict[str, Any] = {
        "start": start,
        "minutes": minutes,
        "seed": seed,
        "comparison": comparison,
        "commands": shell.log,
        "seconds": round(time.perf_counter() - began, 1),
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }
    if start == "pretrained":
        info = load_generator("demo")[1]
        kept = ("images_seen", "sha256", "licence")
        facts["weights"] = {name: getattr(info, name) for name in kept}
    write_atomically(folder / name / "demo.json", json.dumps(facts, indent=2))
    from sdm_lightning.demo.report import write_report

    page = write_report(folder / name, folder)
    print(f"\n{page}\nOpen it in a browser.  ({_time(time.perf_counter() - began)})")


class _Shell:
    """Runs ``sdm`` commands, shows them as one would type them, and keeps their times."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []

    def sdm(self, *words: Any) -> None:
        """Run one command.

        Raises:
            InputError: If it fails; its own message has been printed by then.
        """
        typed = [str(word) for word in words]
        line = "sdm " + shlex.join(typed)
        print(f"$ {line}", flush=True)
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "sdm_lightning", *typed])
        if done.returncode:
            raise InputError(f"the demo stops: 'sdm {typed[0]}' ended with {done.returncode}")
        self.log.append({"command": line, "seconds": round(time.perf_counter() - began, 1)})


def _say(step: int, text: str) -> None:
    print(f"\n[{step}/7] {text}", flush=True)


def _configs(*names: str) -> list[str]:
    return [word for name in names for word in ("--config", f"configs/{name}")]


def _time(seconds: float) -> str:
    return (
        f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds >= 60 else f"{seconds:.0f} s"
    )


def _compare(run: Path, checkpoint: Path, seed: int) -> dict[str, Any]:
    """Score model and baselines on the images and masks of ``sdm test``; save the first few."""
    import yaml
    from tqdm import tqdm

    from sdm_lightning.data.datamodule import InpaintingDataModule
    from sdm_lightning.data.transforms import to_array
    from sdm_lightning.demo.comparison import compare
    from sdm_lightning.features.extractors import ImageNetworkFeatures
    from sdm_lightning.inference import Inpainter
    from sdm_lightning.seeding import stable_seed

    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    settings = config["data"]
    taken = ("test", "test_masks", "mask_seed", "resolution", "batch_size")
    data = InpaintingDataModule(num_workers=0, **{key: settings[key] for key in taken})
    iterations = sorted({1, 2, int(config["model"]["test_iterations"])})
    images: list[npt.NDArray[np.uint8]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    keys: list[str] = []
    for batch in data.test_dataloader():
        images += list(to_array(batch["image"]))
        masks += list(batch["mask"][:, 0].numpy() > 0.5)
        keys += list(batch["key"])
    seeds = [stable_seed(seed, key) for key in keys]
    bar = tqdm(total=len(images), desc="compare", unit="img", disable=not sys.stderr.isatty())

    def show(index: int, steps: Sequence[Any], filled: dict[str, Any]) -> None:
        bar.update()
        if index < SHOWN:
            place = run / "pictures" / f"{index:02d}"
            _write_pictures(place, images[index], masks[index], steps, filled)

    found = compare(
        Inpainter.from_pretrained(checkpoint, "auto"), images, masks, seeds, iterations, show,
        # Not the network of the training loss, which would judge its own work.
        ImageNetworkFeatures("efficientnet-lite2"),
    )  # fmt: skip
    bar.close()
    for method, scores in found.scores.items():
        values = "  ".join(f"{name} {value:7.3f}" for name, value in scores.items())
        print(f"{method:<22} {values}")
    return {**asdict(found), "keys": keys[:SHOWN], "masks": str(settings["test_masks"])}


def _write_pictures(
    folder: Path,
    image: npt.NDArray[np.uint8],
    known: npt.NDArray[np.bool_],
    steps: Sequence[Any],
    filled: dict[str, npt.NDArray[np.uint8]],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    grey = np.uint8(128)
    pictures = {"target": image, "input": np.where(known[:, :, None], image, grey)}
    for number, step in enumerate(steps, start=1):
        pictures[f"step{number}"] = step.array
        pictures[f"state{number}"] = np.where(step.mask[:, :, None], step.array, grey)
        pictures[f"uncertainty{number}"] = np.asarray(step.uncertainty_image)
    for name, array in {**pictures, **filled}.items():
        Image.fromarray(array).save(folder / f"{name}.png")


def _write_photos(run: Path) -> None:
    """Write the held-out photos with typical damage, as files."""
    from sdm_lightning.demo.photos import damage_mask, test_photos

    for folder in ("photos", "photo-masks", "photo-inputs"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    for name, photo in test_photos().items():
        mask = damage_mask(name, photo)
        shown = np.where(mask[:, :, None] > 0, photo, np.uint8(128))
        Image.fromarray(photo).save(run / "photos" / f"{name}.png")
        Image.fromarray(mask).save(run / "photo-masks" / f"{name}.png")
        Image.fromarray(shown).save(run / "photo-inputs" / f"{name}.png")
