"""A weights file can make the package compute, and nothing else; lies in it cost one line."""

import json
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sdm_lightning.errors import InputError
from sdm_lightning.inference import WeightsInfo, load_generator, save_weights
from sdm_lightning.inference.trusted import LARGEST, build
from sdm_lightning.models import Generator
from tests.inference.tiny_weights import TINY

GENERATOR = {"class_path": "sdm_lightning.models.Generator", "init_args": TINY}
DIFFUSION = {"class_path": "sdm_lightning.diffusion.SpatialDiffusion", "init_args": {}}


@pytest.mark.parametrize(
    ("class_path", "arguments"),
    [
        # The whole command line, which builds whatever its words name.
        ("sdm_lightning.cli.trainer.SDMCommandLine", {"words": ["fit"], "descriptions": {}}),
        # A TorchScript file is a program.
        ("sdm_lightning.inference.methods.TorchScriptMethod", {"path": "x.pt"}),
        # What a module has imported for itself.
        ("sdm_lightning.models.generator.Tensor", {}),
        ("sdm_lightning.models.generator.Any", {}),
        ("sdm_lightning.models.generator.nn.Linear", {"in_features": 1, "out_features": 1}),
        ("sdm_lightning.models.Missing", {}),
        ("sdm_lightning.diffusion.complete", {}),
        ("sdm_lightning.models", {}),
        ("sdm_lightning", {}),
        ("sdm_lightning_evil.models.Generator", {}),
        ("builtins.eval", {}),
        ("", {}),
    ],
)
def test_classes_that_weights_may_not_name(class_path: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"outside|not a class|cannot import"):
        build({"class_path": class_path, "init_args": arguments}, "w.safetensors")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"num_downsamples": 10**9}, "outside 0"),
        ({"num_downsamples": LARGEST}, "must be 0 to 16"),
        ({"mapping_layers": -1}, "outside 0"),
        ({"base_channels": 1.5}, "base_channels is 1.5, not int"),
        ({"uncertainty_guided": 1}, "not bool"),
        ({"initial_log_variance": float("nan")}, "holds nan"),
        ({"attention_strides": [10**12]}, "outside 0"),
        ({"attention_heads": 0}, "refuses its arguments"),
        ({"mean_activation": "exec"}, "neither 'linear' nor 'tanh'"),
        ({"nothing": 1}, "has no argument 'nothing'"),
        ([1], "is no mapping"),
        (DIFFUSION, "has no argument 'class_path'"),
    ],
)
def test_arguments_that_no_network_has(arguments: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        build({**GENERATOR, "init_args": arguments}, "w.safetensors")


def test_a_network_of_other_size_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    huge = {"base_channels": 8192, "max_channels": 8192, "latent_dim": 8192}  # 500 GB of weights
    config = {**GENERATOR, "init_args": {**TINY, **huge}}
    save_weights(path, WeightsInfo(config, DIFFUSION), Generator(**TINY).state_dict())
    tracemalloc.start()
    with pytest.raises(InputError, match="weights do not fit the generator"):
        load_generator(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_weights_that_are_not_finite_or_of_another_type(tmp_path: Path) -> None:
    state = Generator(**TINY).state_dict()
    name = next(iter(state))
    path = tmp_path / "w.safetensors"
    info = WeightsInfo(GENERATOR, DIFFUSION)
    save_weights(path, info, {**state, name: state[name] * float("nan")})
    with pytest.raises(InputError, match=f"{name} holds NaN or infinity"):
        load_generator(path)
    save_weights(path, info, {**state, name: state[name].to(torch.int8)})
    with pytest.raises(InputError, match=rf"{name} is torch\.int8, not torch\.float32"):
        load_generator(path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"generator": 1, "diffusion": 2}', "no sdm_lightning configuration"),
        ("{}", "generator"),
        ('{"generator": {}, "diffusion": {}, "resolution": "64"}', "resolution is '64'"),
        ('{"generator": {}, "diffusion": {}, "resolution": 0}', "resolution is 0"),
        ('{"generator": {}, "diffusion": {}, "images_seen": 1e400}', "images_seen is inf"),
        ('{"generator": {}, "diffusion": {}, "licence": []}', "licence is no text"),
        ('{"generator": {}, "diffusion": {}, "parameters": "x"}', "neither ema nor raw"),
        ('{"generator": {}, "diffusion": {}, "resolution": ' + "9" * 5000 + "}", "configuration"),
    ],
)
def test_metadata_that_lie(tmp_path: Path, config: str, says: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"sdm_lightning": config})
    with pytest.raises(InputError, match=says):
        load_generator(path)


def entry(dtype: str, shape: list[int], offsets: list[int]) -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 4) + b"nope",
        *(
            struct.pack("<Q", len(header)) + header + bytes(8)
            for header in (
                json.dumps(content).encode()
                for content in (
                    entry("F32", [2], [0, 16]),
                    entry("F32", [2**40, 2**40], [0, 8]),
                    entry("F32", [2], [8, 0]),
                    entry("F32", [2], [2**62, 2**62 + 8]),
                    entry("F32", [-2], [0, 8]),
                    entry("NOPE", [2], [0, 8]),
                    {"x": [1, 2]},
                )
            )
        ),
    ],
)
def test_safetensors_whose_header_lies(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_generator(path)


@pytest.mark.parametrize("class_path", ["subprocess.Popen", "builtins.exec", "3.x", "a-b.x"])
def test_the_variable_opens_nothing_of_python_itself(
    monkeypatch: pytest.MonkeyPatch, class_path: str
) -> None:
    config = {"class_path": class_path, "init_args": {}}
    for trusted in ("", "subprocess, builtins 3 a-b"):
        monkeypatch.setenv("SDM_TRUSTED_PACKAGES", trusted)
        with pytest.raises(InputError, match=r"names .*, outside sdm_lightning$"):
            build(config, "w.safetensors")


def test_the_variable_trusts_a_package_of_the_working_directory(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (workdir / "own_schedules.py").write_text(
        "class Late:\n    def __call__(self, r): return r**2\n\ndef late(r): return r**3\n"
    )
    by_class = {**DIFFUSION, "init_args": {"schedule": {"class_path": "own_schedules.Late"}}}
    by_name = {**DIFFUSION, "init_args": {"schedule": "own_schedules.late"}}
    for config in (by_class, by_name):
        with pytest.raises(InputError, match="set SDM_TRUSTED_PACKAGES=own_schedules "):
            build(config, "w.safetensors")
    monkeypatch.setenv("SDM_TRUSTED_PACKAGES", "other, own_schedules")
    assert build(by_class, "w.safetensors").schedule(0.5) == 0.25
    assert build(by_name, "w.safetensors").schedule(0.5) == 0.125
    for name in ("", "os.getcwd", "sdm_lightning.diffusion.predict"):
        with pytest.raises(InputError, match=r"outside|not a class"):
            build({**DIFFUSION, "init_args": {"schedule": name}}, "w.safetensors")
