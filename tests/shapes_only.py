"""A device with shapes but without values, in place of a GPU.

Under ``FakeTensorMode`` nothing is computed, and an operator raises where its tensors lie on two
devices, or where a value is read back, for which a GPU would first have to finish its queue.
"meta" stands for the GPU: of the devices that need no hardware only it has an autograd engine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loops import fit_loop
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import adam
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdm_lightning import devices
from sdm_lightning.features import reuse
from sdm_lightning.features.frozen import UsesFrozenNetwork
from sdm_lightning.training import checks

DEVICE = torch.device("meta")


class NoFloat64(TorchDispatchMode):
    """Apple's GPUs: no tensor of float64 on the device, and none is cast on its way from there."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, found)) if isinstance(x, torch.Tensor)]
        if any(x.device == DEVICE for x in tensors):
            assert not any(x.dtype == torch.float64 for x in tensors), f"float64 in {func}"
        return found


@contextmanager
def shapes_only(monkeypatch: pytest.MonkeyPatch, *, float64: bool = False) -> Iterator[None]:
    """Compute shapes alone. A value that lies on the CPU may be read, and is 0.

    ``float64`` is whether the device has it: NVIDIA's GPUs do, Apple's do not.
    """
    read = torch.ops.aten._local_scalar_dense.default
    refuse = fake_impls.op_implementations_dict[read]

    def read_on_the_cpu(mode: FakeTensorMode, function: object, value: FakeTensor) -> object:
        on_the_cpu = value.fake_device.type == "cpu"
        return value.dtype.is_floating_point * 0.0 if on_the_cpu else refuse(mode, function, value)

    # What torch offers on a GPU but not for "meta": one kernel for Adam, autocast, constants.
    autocast, tensor = torch.autocast, torch.tensor
    with monkeypatch.context() as patch:
        patch.setitem(fake_impls.op_implementations_dict, read, read_on_the_cpu)
        patch.setattr(adam, "_device_dtype_check_for_fused", lambda *_, **__: None)
        patch.setattr(torch, "autocast", lambda _, *args, **kw: autocast("cpu", *args, **kw))
        patch.setattr(
            torch, "tensor", lambda *args, device=None, **kw: tensor(*args, **kw).to(device)
        )
        if not float64:
            patch.setattr(devices, "WITHOUT_FLOAT64", {DEVICE.type})
        with FakeTensorMode(), nullcontext() if float64 else NoFloat64():
            yield


def to_device(module: nn.Module) -> None:
    """Move parameters and buffers, and frozen networks that are loaded; nothing else."""
    for part in module.modules():
        if isinstance(part, UsesFrozenNetwork):
            for network in part._network:
                to_device(network)
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(_moved(parameter), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _moved(buffer)


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)


class _AnyDevice(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        pass


class _ShapesOnly(SingleDeviceStrategy):
    def __init__(self) -> None:
        super().__init__(device=DEVICE, accelerator=_AnyDevice())

    def model_to_device(self) -> None:
        assert self.model is not None
        to_device(self.model)

    def teardown(self) -> None:
        """Leave the model there: it has no values that could come back."""


class _OneBatch:
    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield self.batch

    def __len__(self) -> int:
        return 1


def fit_shapes(module: pl.LightningModule, monkeypatch: pytest.MonkeyPatch, size: int) -> set[str]:
    """Train on one batch of four in Lightning's own loop; return the names that were logged."""
    for part in module.modules():
        if isinstance(part, UsesFrozenNetwork):
            part.prepare()
    logged: set[str] = set()
    monkeypatch.setattr(module, "log", lambda name, *_, **__: logged.add(name))
    # Without values all tensors lie at one address.
    monkeypatch.setattr(reuse, "_same_pixels", lambda entry, images: entry.images is images)
    monkeypatch.setattr(fit_loop, "has_len_all_ranks", lambda *_, **__: True)
    monkeypatch.setattr(checks, "refuse_unfit_batch", lambda _: None)  # it reads the first one
    with shapes_only(monkeypatch):
        batch = {
            "image": torch.empty(4, 3, size, size),
            "mask": torch.empty(4, 1, size, size),
            "key": ["a", "b", "c", "d"],
        }
        trainer = pl.Trainer(
            max_steps=1, strategy=_ShapesOnly(), logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, _OneBatch(batch))
    return logged
