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
    ("cuda", "mps", "float64", "expected"),
    [
        (True, False, False, "cuda"),
        (False, True, False, "mps"),
        (False, True, True, "cpu"),
        (False, False, False, "cpu"),
    ],
)
def test_auto_takes_the_best_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, float64: bool, expected: str
) -> None:
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device("auto", float64=float64).type == expected


@pytest.mark.parametrize(
    ("device", "mps", "float64", "says"),
    [
        ("cuda", True, False, "device cuda: this machine has no usable CUDA GPU"),
        ("cuda:1", True, True, "device cuda:1: this machine has no usable CUDA GPU"),
        ("mps", False, False, "device mps: this machine has no usable Apple GPU"),
        ("mps", True, True, "device mps: cannot compute these scores"),
        ("xla", True, False, "device 'xla': choose cpu, cuda, mps or auto"),
        ("meta", True, True, "device 'meta': choose cpu, cuda, mps or auto"),
        ("abacus", True, False, "device 'abacus': choose cpu, cuda, mps or auto"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, mps: bool, float64: bool, says: str
) -> None:
    machine(monkeypatch, cuda=False, mps=mps)
    with pytest.raises(InputError, match=says):
        choose_device(device, float64=float64)


def test_a_device_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=True, mps=True)
    for device in ("cpu", "cuda:1", "mps", torch.device("cpu")):
        assert choose_device(device) == torch.device(device)


def test_a_gpu_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=True, mps=False)
    with pytest.raises(InputError, match="device cuda:2: this machine's last GPU is cuda:1"):
        choose_device("cuda:2")
