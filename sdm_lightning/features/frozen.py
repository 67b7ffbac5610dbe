"""A pretrained network that a module uses without owning it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="UsesFrozenNetwork")


class UsesFrozenNetwork(nn.Module, ABC):
    """Base of losses and discriminators that look at a pretrained network's feature maps.

    Weights are loaded by ``prepare`` or by the first use, not by the constructor: a model that is
    only tested or used for inpainting needs none. The network is frozen: it is no child module, so
    it is neither trained nor counted nor saved, and ``train()`` does not reach its batch norms. It
    follows its user to another device.
    """

    def __init__(self) -> None:
        super().__init__()
        self._network: list[nn.Module] = []  # a list hides it from nn.Module

    @abstractmethod
    def load(self) -> nn.Module:
        """Build the network with its weights.

        Raises:
            InputError: If the weights cannot be found, or are damaged or of another network.
        """

    def prepare(self) -> None:
        """Load the weights unless that has been done.

        Raises:
            InputError: See ``load``.
        """
        if not self._network:
            self._network.append(self.load().float().eval().requires_grad_(False))

    def network_on(self, device: torch.device) -> nn.Module:
        """Return the network, loaded and on that device."""
        self.prepare()
        network = self._network[0]
        if next(network.parameters()).device != device:
            self._move(device)
        return network

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        # Applied to an empty tensor: the network follows devices, not changes of precision.
        for network in self._network:
            self._move(fn(next(network.parameters()).new_empty(0)).device)
        return self

    def _move(self, device: torch.device) -> None:
        with torch.inference_mode(False):
            for network in self._network:
                network.to(device)
