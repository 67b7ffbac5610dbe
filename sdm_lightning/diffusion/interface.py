"""The generator's interface, held against what a network of the user's own returns."""

from collections.abc import Callable

from torch import Tensor

from sdm_lightning.errors import InputError, described


def network_output(network: Callable[..., object], *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Call a generator and hold what it returns against its interface.

    Args:
        network: The generator.
        inputs: ``(B, 7, H, W)``, and styles if it takes them.

    Returns:
        Mean and log variance.

    Raises:
        InputError: If it returns anything but two tensors ``(B, 3, H, W)``.
    """
    output = network(*inputs)
    shape = (inputs[0].shape[0], 3, *inputs[0].shape[2:])
    if isinstance(output, (tuple, list)) and len(output) == 2:
        mean, log_variance = output
        if getattr(mean, "shape", None) == getattr(log_variance, "shape", None) == shape:
            return mean, log_variance
    raise InputError(
        f"model.generator {type(network).__name__} returned {described(output)}; it must return "
        f"mean and log variance, each {shape}"
    )
