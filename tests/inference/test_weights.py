import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from sdm_lightning.diffusion import CubicSchedule
from sdm_lightning.errors import InputError
from sdm_lightning.files import sha256_of_file
from sdm_lightning.inference import WeightsInfo, load_generator, save_weights
from sdm_lightning.inference.discriminators import (
    discriminator_file,
    load_discriminator,
)
from sdm_lightning.inference.weights import build, find_weights
from sdm_lightning.models import Discriminator, Generator, MappingNetwork
from tests.inference.tiny_weights import TINY, checkpoint

GENERATOR = {"class_path": "sdm_lightning.models.Generator", "init_args": TINY}
DIFFUSION = {"class_path": "sdm_lightning.diffusion.SpatialDiffusion", "init_args": {}}
INFO = WeightsInfo(GENERATOR, DIFFUSION)


def test_what_is_saved_is_loaded(tiny_weights: Path) -> None:
    generator, info = load_generator(tiny_weights)
    with safe_open(tiny_weights, "pt") as file:
        for name, tensor in generator.state_dict().items():
            assert torch.equal(file.get_tensor(name), tensor)
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert (info.resolution, info.images_seen, info.parameters) == (32, 1234, "ema")
    assert (info.licence, info.data) == ("CC0-1.0", "random numbers")
    diffusion = info.build_diffusion()
    assert (diffusion.num_iterations, diffusion.alpha) == (3, 0.05)
    assert isinstance(diffusion.schedule, CubicSchedule)
    digest = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()
    # The form of sha256sum, so that `sha256sum -c` holds the file against it.
    sidecar = Path(f"{tiny_weights}.sha256")
    assert sidecar.read_text() == f"{digest}  {tiny_weights.name}\n"
    assert info.sha256 == digest


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    generator = Generator(**TINY)
    path = save_weights(tmp_path / "half.safetensors", INFO, generator.state_dict(), half=True)
    loaded, _ = load_generator(path)
    for name, tensor in generator.state_dict().items():
        assert loaded.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())
    with pytest.raises(InputError, match="big does not fit into float16"):
        save_weights(path, INFO, {"big": torch.tensor(1e6)}, half=True)
    assert load_generator(path)[1].sha256  # the good file is still there


def test_damaged_and_foreign_files(tmp_path: Path, tiny_weights: Path) -> None:
    content = tiny_weights.read_bytes()
    altered = tmp_path / "altered.safetensors"
    altered.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    Path(f"{altered}.sha256").write_text(Path(f"{tiny_weights}.sha256").read_text())
    with pytest.raises(InputError, match="SHA-256"):
        load_generator(altered)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_generator(cut)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="no sdm_lightning configuration"):
        load_generator(tmp_path / "foreign.safetensors")
    other = save_weights(tmp_path / "other.safetensors", INFO, {"x": torch.zeros(1)})
    with pytest.raises(InputError, match=r"do not fit the generator: Missing key"):
        load_generator(other)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such weights"):
        find_weights("nothing-of-that-name")
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"neither \.safetensors nor \.ckpt"):
        load_generator(tmp_path / "weights.bin")
    with pytest.raises(InputError, match=r"end in \.safetensors"):
        save_weights(tmp_path / "weights.pt", INFO, {})
    short = WeightsInfo({"class_path": "sdm_lightning.Generator"}, DIFFUSION)
    with pytest.raises(InputError, match=r"give sdm_lightning\.models\.Generator"):
        save_weights(tmp_path / "weights.safetensors", short, {})


def test_another_package_by_explicit_trust() -> None:
    config = {"class_path": "fractions.Fraction", "init_args": {"numerator": 3}}
    assert build({"nested": [config]}, "file", ("fractions",)) == {"nested": [3]}


def settings(**changes: Any) -> dict[str, Any]:
    content = checkpoint()
    return content | {"hyper_parameters": content["hyper_parameters"] | changes}


def test_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    content = checkpoint()
    torch.save(content, path)
    for parameters, prefix in (("ema", "generator_ema."), ("raw", "generator.")):
        generator, info = load_generator(path, parameters=parameters)  # type: ignore[arg-type]
        for name, tensor in generator.state_dict().items():
            assert torch.equal(content["state_dict"][prefix + name], tensor)
        assert (info.images_seen, info.parameters) == (640, parameters)
        assert info.build_diffusion().num_iterations == 5
        assert info.build_diffusion().alpha == 0.5
        copy = save_weights(tmp_path / "copy.safetensors", info, generator.state_dict())
        assert load_generator(copy)[1].build_diffusion().uncertainty_channels == "max"
        assert load_generator(copy)[1].extra == {"checkpoint_sha256": sha256_of_file(path)}


def test_a_checkpoint_may_be_overwritten_while_its_weights_are_in_use(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    content = checkpoint()
    torch.save(content, path)
    generator, _ = load_generator(path)
    with path.open("r+b") as file:  # as cp does, and not a rename
        file.write(bytes(path.stat().st_size))
    for name, tensor in generator.state_dict().items():
        assert torch.equal(content["state_dict"]["generator_ema." + name], tensor)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (checkpoint(hyper_parameters={}), "no class_path"),
        (checkpoint(state_dict={"x": torch.zeros(1)}), "holds no generator_ema"),
        ({"model": {}}, "no state_dict"),
        ({"state_dict": {}, "path": Path("x")}, "cannot be read"),
        (checkpoint(hyper_parameters=[1]), "hyper_parameters are no mapping"),
        (checkpoint(state_dict=[1]), "state_dict is no mapping of names to tensors"),
        (checkpoint(state_dict={1: torch.zeros(1)}), "state_dict is no mapping"),
        (checkpoint(state_dict={"generator_ema.x": 1}), "state_dict is no mapping"),
        (checkpoint(images_seen="abc"), "images_seen is 'abc'"),
        (checkpoint(images_seen=float("nan")), "images_seen is nan"),
        (checkpoint(images_seen=torch.zeros(3)), "images_seen is tensor"),
        (checkpoint(InpaintingDataModule={"resolution": -64}), "resolution is -64"),
        (checkpoint(InpaintingDataModule={"resolution": True}), "resolution is True"),
        (settings(diffusion={**DIFFUSION, "init_args": [1]}), "not a checkpoint of sdm fit"),
        (settings(diffusion={**DIFFUSION, "init_args": torch.ones(2)}), "not a checkpoint of"),
        (settings(discriminator={"init_args": "x"}), "not a checkpoint of sdm fit"),
        (settings(test_iterations=torch.ones(2)), "num_iterations is tensor"),
    ],
)
def test_checkpoints_that_cannot_be_used(content: dict, says: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(InputError, match=rf"bad\.ckpt: .*{says}"):
        load_generator(tmp_path / "bad.ckpt")[1].build_diffusion()


@pytest.mark.parametrize("content", [checkpoint(hyper_parameters=[1]), {"state_dict": [1]}])
def test_discriminators_of_foreign_checkpoints(content: dict, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(InputError, match=r"bad\.ckpt: its"):
        load_discriminator(tmp_path / "bad.ckpt")


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        (MappingNetwork, {"latent_dim": 8, "num_layers": 1}),
        (Discriminator, {"resolution": 16, "base_channels": 4}),
    ],
)
def test_networks_of_this_package_that_are_no_generators(
    network: type[torch.nn.Module], arguments: dict[str, Any], tmp_path: Path
) -> None:
    class_path = f"sdm_lightning.models.{network.__name__}"
    info = WeightsInfo({"class_path": class_path, "init_args": arguments}, DIFFUSION)
    state = network(**arguments).state_dict()
    path = save_weights(tmp_path / "w.safetensors", info, state)
    with pytest.raises(InputError, match=rf"w\.safetensors: {class_path} is no generator"):
        load_generator(path)


def test_metadata_is_plain_json(tiny_weights: Path) -> None:
    with safe_open(tiny_weights, "pt") as file:
        config = json.loads(file.metadata()["sdm_lightning"])
    assert config["format"] == "sdm-lightning/1"
    assert config["generator"]["class_path"] == "sdm_lightning.models.Generator"


def test_a_discriminator_may_travel_along(tmp_path: Path) -> None:
    generator = Generator(**TINY)
    path = save_weights(
        tmp_path / "both.safetensors",
        INFO,
        generator.state_dict(),
        discriminator_state={"x": torch.arange(3.0)},
        discriminator_config={"class_path": "sdm_lightning.models.Discriminator"},
        half=True,
    )
    loaded, _ = load_generator(path)
    assert not any("discriminator" in name for name in loaded.state_dict())
    found = load_discriminator(path)[0]
    assert found is not None
    assert list(found) == ["x"]
    assert torch.equal(found["x"], torch.arange(3.0))
    with safe_open(path, "pt") as file:
        assert not any(name.startswith("discriminator.") for name in file.keys())  # noqa: SIM118
    assert load_discriminator(path)[1] == {"class_path": "sdm_lightning.models.Discriminator"}
    beside = discriminator_file(path)
    assert beside.name == "both.discriminator.safetensors"
    save_weights(path, INFO, Generator(**TINY).state_dict())
    with pytest.raises(InputError, match="belongs to other weights"):
        load_discriminator(path)[0]
    beside.write_bytes(b"x")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_discriminator(path)[0]
    torch.save(checkpoint(), tmp_path / "last.ckpt")
    found = load_discriminator(tmp_path / "last.ckpt")[0]
    assert found is not None
    assert list(found) == ["x"]


def test_without_a_discriminator_there_is_none(tiny_weights: Path) -> None:
    assert load_discriminator(tiny_weights)[0] is None


def test_a_checkpoint_states_its_resolution_whatever_its_discriminator(tmp_path: Path) -> None:
    content = checkpoint(InpaintingDataModule={"batches_done": 1, "resolution": 48})
    torch.save(content, tmp_path / "other.ckpt")
    assert load_generator(tmp_path / "other.ckpt")[1].resolution == 48


def test_a_weights_file_gives_no_other_weights_than_it_holds(tiny_weights: Path) -> None:
    with pytest.raises(InputError, match=r"tiny.safetensors: holds the moving average; the raw"):
        load_generator(tiny_weights, parameters="raw")


def test_parameters_are_averaged_or_raw_and_nothing_else(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="parameters is 'EMA'; choose ema or raw"):
        load_generator(tmp_path / "last.ckpt", parameters="EMA")  # type: ignore[arg-type]
