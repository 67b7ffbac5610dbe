"""The device that a command runs on."""

import pytest
import torch

from sdm_lightning.devices import choose_device
from sdm_lightning.errors import InputError


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if cuda else 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_best_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device("auto").type == expected


@pytest.mark.parametrize(
    ("device", "mps", "says"),
    [
        ("cuda", True, "device cuda: this machine has no usable CUDA GPU"),
        ("cuda:1", True, "device cuda:1: this machine has no usable CUDA GPU"),
        ("mps", False, "device mps: this machine has no usable Apple GPU"),
        ("xla", True, "device 'xla': choose cpu, cuda, mps or auto"),
        ("meta", True, "device 'meta': choose cpu, cuda, mps or auto"),
        ("abacus", True, "device 'abacus': choose cpu, cuda, mps or auto"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, mps: bool, says: str
) -> None:
    machine(monkeypatch, cuda=False, mps=mps)
    with pytest.raises(InputError, match=says):
        choose_device(device)


def test_a_device_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=True, mps=True)
    for device in ("cpu", "cuda:1", "mps", torch.device("cpu")):
        assert choose_device(device) == torch.device(device)


def test_a_gpu_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=True, mps=False)
    with pytest.raises(InputError, match="device cuda:2: this machine's last GPU is cuda:1"):
        choose_device("cuda:2")
