"""A run that was stopped and resumed equals the run that was not, bit for bit."""

import csv
import hashlib

import pytest
import torch

ADA = [
    "--model.augment=sdm_lightning.training.AdaptiveAugment",
    "--model.augment.init_args.interval=3",
    "--model.augment.init_args.images_to_unit=40",
    "--model.augment.init_args.probability=0.3",
]
RECIPE = [*ADA, "--model.losses.r1_interval=2", "--trainer.val_check_interval=3"]


def flat(value, path=""):
    """Every leaf of a nested checkpoint, by its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from flat(item, f"{path}/{index}")
    else:
        yield path, value


def contents(path):
    """What must be equal: weights, optimizers, average, augmentation, clock, data position."""
    checkpoint = torch.load(path, weights_only=True)
    parts = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "images_seen")}
    parts["data"] = checkpoint["InpaintingDataModule"]
    return dict(flat(parts))


def digest(found):
    sha = hashlib.sha256()
    for path, value in sorted(found.items()):
        sha.update(path.encode())
        sha.update(value.numpy().tobytes() if torch.is_tensor(value) else repr(value).encode())
    return sha.hexdigest()


def training_rows(run):
    """What a run logged while training."""
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["train/discriminator"]]


def last_checkpoint(run):
    return max((run / "checkpoints").glob("[0-9]*.ckpt"))


@pytest.mark.parametrize(("workers", "checkpoint"), [(0, "auto"), (2, "last")])
def test_resumed_equals_uninterrupted(sdm, workers, checkpoint):
    recipe = [*RECIPE, f"--data.num_workers={workers}"]
    whole = sdm("fit", *recipe, "--budget.max_images=20", "--ckpt_path=auto", name="whole")
    # The next step is one with R1, as metrics.csv repeats its last value in the rows between.
    sdm("fit", *recipe, "--budget.max_images=10", name="parts")
    parts = sdm("fit", *recipe, "--budget.max_images=20", f"--ckpt_path={checkpoint}", name="parts")

    expected, found = contents(last_checkpoint(whole)), contents(last_checkpoint(parts))
    assert expected["/images_seen"] == 20
    assert expected.keys() == found.keys()
    for path, value in expected.items():
        same = torch.equal(value, found[path]) if torch.is_tensor(value) else value == found[path]
        assert same, path
    assert digest(expected) == digest(found)
    assert any(path.endswith("augment.probability") for path in expected)

    stopped, straight = training_rows(parts), training_rows(whole)
    assert [float(row["images_seen"]) for row in stopped] == list(range(2, 21, 2))
    assert stopped == straight
    assert (parts / "config-2.yaml").is_file()


def test_another_seed_gives_another_run(sdm):
    """The comparison above can fail."""
    one = sdm("fit", *RECIPE, "--budget.max_images=4", name="one")
    two = sdm("fit", *RECIPE, "--budget.max_images=4", "--seed_everything=1", name="two")
    assert digest(contents(last_checkpoint(one))) != digest(contents(last_checkpoint(two)))
