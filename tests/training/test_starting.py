from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.inference import WeightsInfo, save_weights
from sdm_lightning.models import Discriminator, Generator
from sdm_lightning.training.callbacks.starting import StartingWeights

TINY = {
    "base_channels": 4, "max_channels": 4, "num_downsamples": 2, "attention_strides": [4],
    "attention_heads": 1, "bias_channels": 4, "latent_dim": 4, "mapping_layers": 1,
}  # fmt: skip
DESCRIPTION = WeightsInfo(
    {"class_path": "sdm_lightning.models.Generator", "init_args": TINY},
    {"class_path": "sdm_lightning.diffusion.SpatialDiffusion"},
    images_seen=500,
)


def networks(**changes: object) -> SimpleNamespace:
    settings = {**TINY, **changes}
    return SimpleNamespace(
        generator=Generator(**settings),  # type: ignore[arg-type]
        generator_ema=Generator(**settings),  # type: ignore[arg-type]
        discriminator=Discriminator(resolution=16, base_channels=4, max_channels=4),
        images_seen=0,
    )


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, SimpleNamespace]:
    trained = networks()
    path = save_weights(
        tmp_path / "w.safetensors",
        DESCRIPTION,
        trained.generator.state_dict(),
        discriminator_state=trained.discriminator.state_dict(),
    )
    return path, trained


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.state_dict().items())


def test_a_new_run_starts_from_the_weights(weights: tuple[Path, SimpleNamespace]) -> None:
    path, trained = weights
    module = networks()
    assert not equal(module.generator, trained.generator)
    StartingWeights(str(path)).on_fit_start(SimpleNamespace(ckpt_path=None), module)  # type: ignore[arg-type]
    for name, source in (("generator", "generator"), ("generator_ema", "generator")):
        assert equal(getattr(module, name), getattr(trained, source))
    assert equal(module.discriminator, trained.discriminator)
    assert module.images_seen == module.images_before == 500


def test_another_architecture_is_refused(weights: tuple[Path, SimpleNamespace]) -> None:
    callback = StartingWeights(str(weights[0]))
    with pytest.raises(InputError, match=r"do not fit model\.generator as configured"):
        callback.on_fit_start(SimpleNamespace(ckpt_path=None), networks(latent_dim=8))  # type: ignore[arg-type]


def test_a_discriminator_of_another_size_starts_anew(
    weights: tuple[Path, SimpleNamespace],
) -> None:
    path, trained = weights
    module = networks()
    module.discriminator = Discriminator(resolution=32, base_channels=4, max_channels=4)
    callback = StartingWeights(str(path))
    with pytest.warns(UserWarning, match="discriminator starts from random weights"):
        callback.on_fit_start(SimpleNamespace(ckpt_path=None), module)  # type: ignore[arg-type]
    assert equal(module.generator, trained.generator)


def test_weights_that_hold_nan_are_refused(weights: tuple[Path, SimpleNamespace]) -> None:
    path, trained = weights
    next(trained.generator.parameters()).data.flatten()[0] = float("nan")
    bad = save_weights(
        path.with_name("nan.safetensors"), DESCRIPTION, trained.generator.state_dict()
    )
    with pytest.raises(InputError, match=r"nan.safetensors: .* holds NaN or infinity"):
        StartingWeights(str(bad))


def test_nothing_is_built_from_the_file(weights: tuple[Path, SimpleNamespace]) -> None:
    path, trained = weights
    own = save_weights(
        path.with_name("own.safetensors"),
        replace(DESCRIPTION, generator={"class_path": "my_networks.PlainGenerator"}),
        trained.generator.state_dict(),
    )
    module = networks()
    StartingWeights(str(own)).on_fit_start(SimpleNamespace(ckpt_path=None), module)  # type: ignore[arg-type]
    assert equal(module.generator, trained.generator)
