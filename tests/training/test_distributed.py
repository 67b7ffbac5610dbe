"""Which gradients processes exchange. That training equals one process is tested elsewhere."""

from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import nn

from sdm_lightning.training import distributed


def bucket(*trained: bool) -> Any:
    parameters = [nn.Parameter(torch.zeros(1), requires_grad=flag) for flag in trained]
    values = torch.arange(2.0)
    return SimpleNamespace(parameters=lambda: parameters, buffer=lambda: values)


def test_only_buckets_of_the_trained_network_are_reduced() -> None:
    with mock.patch.object(distributed, "allreduce_hook") as reduce:
        left = distributed._trained_buckets(None, bucket(False, False))
        assert not reduce.called
        mixed = distributed._trained_buckets(None, bucket(False, True))
    assert left.wait().tolist() == [0.0, 1.0]
    assert mixed is reduce.return_value
