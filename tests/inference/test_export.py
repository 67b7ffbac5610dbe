from pathlib import Path

import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.inference import load_generator
from sdm_lightning.inference.export import InpaintingGraph, export_model


def test_graph_is_the_loop_with_its_noise_as_an_input(tiny_weights: Path) -> None:
    generator, info = load_generator(tiny_weights)
    diffusion = info.build_diffusion()
    graph = InpaintingGraph(generator, diffusion)
    image, mask, latent, _ = graph.example(16, 24)
    source = torch.Generator().manual_seed(5)
    noise = torch.stack([torch.randn(1, 3, 16, 24, generator=source) for _ in range(2)], dim=1)
    with torch.no_grad():
        completed, uncertainty = graph(image, mask, latent, noise)
        styles = generator.mapping(latent)  # type: ignore[operator]
        steps = list(
            diffusion.iterate(
                lambda inputs: generator(inputs, styles),
                image,
                mask,
                generator=torch.Generator().manual_seed(5),
            )
        )
    assert torch.equal(completed, steps[-1].completed)
    assert torch.equal(uncertainty, steps[0].uncertainty)


@pytest.mark.slow
def test_torch_export_agrees_on_inputs_it_was_not_traced_with(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "model.pt2"
    export_model(str(tiny_weights), str(path), height=16, width=24, num_iterations=2)
    assert "largest difference of completed" in capsys.readouterr().out
    generator, info = load_generator(tiny_weights)
    graph = InpaintingGraph(generator, info.build_diffusion(), 2)
    image, mask, latent, noise = graph.example(16, 24, seed=4)
    mask = (torch.rand(1, 1, 16, 24) > 0.7).float()  # another number of hole pixels
    with torch.no_grad():
        expected = graph(image, mask, latent, noise)
        found = torch.export.load(str(path)).module()(image, mask, latent, noise)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-6)


def test_safetensors_round_trip(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "again.safetensors"
    export_model(str(tiny_weights), str(path), licence="MIT")
    assert "largest relative difference of a weight 0.00e+00" in capsys.readouterr().out
    info = load_generator(path)[1]
    assert (info.licence, info.data, info.images_seen) == ("MIT", "random numbers", 1234)


@pytest.mark.parametrize(
    ("output", "options", "says"),
    [
        ("model.pt", {}, r"its suffix names no format; end it in \.safetensors, \.pt2, \.onnx"),
        ("model.pt2", {"height": -64}, "height is -64; it must be at least 1"),
        ("model.pt2", {"width": 0}, "width is 0"),
        ("model.onnx", {"num_iterations": 0}, "num_iterations is 0"),
        ("model.pt2", {"height": 20}, "not divisible by the generator's stride 8"),
        ("exists.pt2", {}, "exists already"),
        ("model.pt2", {"half": True}, "--half is for .safetensors and .onnx, not for .pt2"),
        ("model.onnx", {"discriminator": True}, "--discriminator is for .safetensors, not for"),
        ("model.pt2", {"data": "photos"}, "--licence and --data are for .safetensors and .onnx"),
    ],
)
def test_what_cannot_be_exported(
    tiny_weights: Path, tmp_path: Path, output: str, options: dict, says: str
) -> None:
    (tmp_path / "exists.pt2").write_bytes(b"")
    with pytest.raises(InputError, match=says):
        export_model(str(tiny_weights), str(tmp_path / output), **options)


def test_onnx_of_free_sizes_is_refused_where_torch_would_write_a_broken_file(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdm_lightning.inference.export.refuse_missing_packages", lambda: None)
    monkeypatch.setattr("torch.__version__", "2.8.0+cpu")
    with pytest.raises(InputError, match=r"needs torch 2.10 or newer, this is 2.8.0.*--height"):
        export_model(str(tiny_weights), str(tmp_path / "model.onnx"))
    assert not list(tmp_path.iterdir())


def test_onnx_without_its_package_is_refused(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"needs onnx, onnxscript, onnxruntime: pip install '\.\[onnx\]' in a"
    ):
        export_model(str(tiny_weights), str(tmp_path / "model.onnx"))
