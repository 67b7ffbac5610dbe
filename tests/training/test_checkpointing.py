"""Checkpoints: written whole, and refused in one line where they cannot serve."""

import pathlib

import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.inference.weights import load_generator
from sdm_lightning.training.checkpointing import AtomicCheckpointIO, fitting_weights


def test_what_is_no_checkpoint_is_refused(tmp_path):
    whole = tmp_path / "whole.ckpt"
    AtomicCheckpointIO().save_checkpoint({"images_seen": 1, "x": torch.zeros(1000)}, whole)
    cut, text, other = tmp_path / "cut.ckpt", tmp_path / "text.ckpt", tmp_path / "other.ckpt"
    cut.write_bytes(whole.read_bytes()[:2000])
    text.write_text("hello\n")
    torch.save({"weight": torch.zeros(2)}, other)
    for path in (cut, text):
        with pytest.raises(InputError, match=rf"{path}: cannot be read as a checkpoint \("):
            AtomicCheckpointIO().load_checkpoint(path)
    with pytest.raises(InputError, match=f"{other}: holds no run of sdm fit"):
        AtomicCheckpointIO().load_checkpoint(other)


def test_pytorchs_advice_to_unpickle_anything_is_not_passed_on(tmp_path):
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}, "args": pathlib.PurePath("x")}, foreign)
    for read in (AtomicCheckpointIO().load_checkpoint, load_generator):
        with pytest.raises(InputError, match="objects other than tensors") as caught:
            read(foreign)
        assert "weights_only" not in str(caught.value)


def test_weights_must_fit():
    here = {"generator_ema.w": torch.zeros(2), "discriminator.w": torch.zeros(3)}
    there = {"generator_ema.w": torch.ones(2), "discriminator.w": torch.ones(4)}
    with pytest.raises(InputError, match=r"first is discriminator.w, \(4,\) there and \(3,\) here"):
        fitting_weights(there, here, training=True)
    fitting = fitting_weights(there, here, training=False)
    assert torch.equal(fitting["generator_ema.w"], torch.ones(2))
    assert torch.equal(fitting["discriminator.w"], torch.zeros(3))
    with pytest.raises(
        InputError, match=r"a.ckpt: .* generator_ema.more, \(1,\) there and nothing here"
    ):
        fitting_weights({**there, "generator_ema.more": torch.ones(1)}, here, False, "a.ckpt")


def test_augmentation_may_be_turned_on_or_off():
    network = {"generator.w": torch.zeros(2)}
    augmented = {**network, "augment.probability": torch.tensor(0.5)}
    assert fitting_weights(network, augmented, training=True) == augmented
    assert fitting_weights(augmented, network, training=True) == network
    changed = {**network, "augment.probability": torch.tensor(0.25)}
    assert fitting_weights(changed, augmented, True)["augment.probability"] == 0.25
