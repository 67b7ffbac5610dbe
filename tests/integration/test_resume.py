"""A run that was stopped and resumed equals the run that was not, bit for bit."""

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


def last_checkpoint(run):
    return max((run / "checkpoints").glob("[0-9]*.ckpt"))


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_equals_uninterrupted(sdm, workers):
    recipe = [*RECIPE, f"--data.num_workers={workers}"]
    whole = sdm("fit", *recipe, "--budget.max_images=20", name="whole")
    sdm("fit", *recipe, "--budget.max_images=8", name="parts")
    parts = sdm("fit", *recipe, "--budget.max_images=20", "--ckpt_path=last", name="parts")

    expected, found = contents(last_checkpoint(whole)), contents(last_checkpoint(parts))
    assert expected["/images_seen"] == 20
    assert expected.keys() == found.keys()
    for path, value in expected.items():
        same = torch.equal(value, found[path]) if torch.is_tensor(value) else value == found[path]
        assert same, path
    assert digest(expected) == digest(found)
    assert any(path.endswith("augment.probability") for path in expected)


def test_another_seed_gives_another_run(sdm):
    """The comparison above can fail."""
    one = sdm("fit", *RECIPE, "--budget.max_images=4", name="one")
    two = sdm("fit", *RECIPE, "--budget.max_images=4", "--seed_everything=1", name="two")
    assert digest(contents(last_checkpoint(one))) != digest(contents(last_checkpoint(two)))
