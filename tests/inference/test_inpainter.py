from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sdm_lightning.diffusion import SpatialDiffusion
from sdm_lightning.errors import InputError
from sdm_lightning.inference import Inpainter, heat_map, load_generator
from sdm_lightning.inference.results import RegionStep
from tests.inference.conftest import Recorder

RNG = np.random.default_rng(0)


def picture(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def holes(height: int, width: int) -> np.ndarray:
    known = np.ones((height, width), bool)
    known[height // 4 : height // 2 + 1, width // 3 : width // 2 + 1] = False
    return known


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 65), (64, 64), (101, 40)])
@pytest.mark.parametrize("work_size", [0, 24])
def test_any_size_gets_the_networks_colour_in_the_hole_alone(
    recorder: Recorder, size: tuple[int, int], work_size: int
) -> None:
    array, known = picture(*size), holes(*size)
    result = Inpainter(recorder, work_size=work_size)(array, known, seams=False, detail=False)
    assert result.array.shape == array.shape
    np.testing.assert_array_equal(result.array[known], array[known])
    if work_size == 0:
        # 0.5, -0.5 and 0 of [-1, 1]: enlarging blends with known colours, full size does not.
        np.testing.assert_array_equal(result.array[~known], np.broadcast_to(
            np.array([191, 64, 128], np.uint8), result.array[~known].shape
        ))  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
def test_what_is_filled_is_opaque(recorder: Recorder, dtype: type, channels: int) -> None:
    array, known = RNG.integers(0, 255, (13, 21, channels)).astype(dtype), holes(13, 21)
    result = Inpainter(recorder, SpatialDiffusion(num_iterations=2))(array, known)
    for filled in (result.array, result.steps[0].array):
        assert (filled[~known][:, -1] == np.iinfo(dtype).max).all()
        np.testing.assert_array_equal(filled[known], array[known])


def test_what_the_network_sees(recorder: Recorder) -> None:
    array, known = picture(13, 21), holes(13, 21)
    Inpainter(recorder, SpatialDiffusion(num_iterations=2))(array, known)
    first, second = recorder.inputs
    assert first.shape == (1, 7, 16, 24)
    expected = np.where(known[:, :, None], array / 127.5 - 1, 0)
    np.testing.assert_allclose(first[0, :3, :13, :21].permute(1, 2, 0), expected, atol=1e-6)
    np.testing.assert_array_equal(first[0, 3, :13, :21], known)
    np.testing.assert_array_equal(first[0, 3, 13], first[0, 3, 12])  # mirrored below
    assert float(second[0, 6, 0, 0]) == 0.5


def test_an_all_known_mask_returns_the_picture_without_asking_the_network(
    recorder: Recorder,
) -> None:
    array = picture(20, 30)
    result = Inpainter(recorder)(array, np.ones((20, 30), bool))
    np.testing.assert_array_equal(result.array, array)
    assert not recorder.inputs
    assert not result.uncertainty.any()
    assert result.steps == []


def test_an_all_hole_mask_is_filled_whole(recorder: Recorder) -> None:
    with pytest.warns(UserWarning, match="hole-white"):
        result = Inpainter(recorder)(picture(20, 30), np.zeros((20, 30), bool))
    np.testing.assert_array_equal(result.array, np.broadcast_to([191, 64, 128], (20, 30, 3)))


def test_steps_pick_from_left_to_right_and_end_with_the_result(recorder: Recorder) -> None:
    array, known = picture(16, 16), np.ones((16, 16), bool)
    known[4:12, 4:12] = False
    result = Inpainter(recorder, SpatialDiffusion(num_iterations=4, alpha=0))(array, known)
    assert [int((~step.mask).sum()) for step in result.steps] == [48, 32, 16, 0]
    assert result.steps[0].mask[4:12, 4:6].all()
    assert not result.steps[0].mask[4:12, 6:12].any()
    np.testing.assert_array_equal(result.steps[-1].array, result.array)
    # The least certain column is 1, the most certain 0, the rest between.
    np.testing.assert_allclose(result.uncertainty[4:12, 4], 0, atol=1e-6)
    np.testing.assert_allclose(result.uncertainty[4:12, 11], 1, atol=1e-6)
    assert not result.uncertainty[known].any()


def test_uncertainty_is_compared_over_all_cut_outs(recorder: Recorder) -> None:
    """The deviation grows with the column of the cut-out, which begins left of the first hole."""
    array, known = picture(100, 200), np.ones((100, 200), bool)
    known[40:44, 2:6] = known[40:44, 150:154] = False
    result = Inpainter(recorder, work_size=32)(array, known)
    for filled in (result, result.steps[0]):
        left, right = filled.uncertainty[40:44, 2:6], filled.uncertainty[40:44, 150:154]
        assert left.min() == 0
        assert left.max() < right.min()
        assert right.max() == 1


def test_several_holes_keep_their_own_pixels(recorder: Recorder) -> None:
    array, known = picture(200, 200), np.ones((200, 200), bool)
    known[10:30, 10:30] = known[150:190, 120:170] = False
    known[80, 3:190] = False
    result = Inpainter(recorder, work_size=32)(array, known, seams=False, detail=False)
    assert len(result.boxes) > 4  # the two holes, and the scratch in pieces
    scratch = result.array[80, 3:190].astype(int)
    assert np.abs(scratch - [191, 64, 128]).max() <= 1
    np.testing.assert_array_equal(result.array[known], array[known])
    centre = result.array[160:180, 135:155].astype(int)
    assert np.abs(centre - [191, 64, 128]).max() <= 1
    assert all(step.array.shape == array.shape for step in result.steps)
    assert result.steps[-1].mask.all()


def test_later_regions_see_what_earlier_ones_filled(recorder: Recorder) -> None:
    """A wire that ends in a blob: the wire in small cut-outs first, then the blob."""
    known = np.ones((256, 256), bool)
    known[40:120, 40:120] = False
    known[78:82, 120:250] = False
    result = Inpainter(recorder, SpatialDiffusion(1), work_size=32)(picture(256, 256), known)
    blob = max(result.boxes, key=lambda box: box.side)
    assert blob.side <= 200, "not stretched by the wire"
    assert max(b.side for b in result.boxes if b is not blob) <= 32, "the wire at full size"
    seen = recorder.inputs[-1][0, 3]  # the blob's mask
    assert seen[seen.shape[0] // 2, -4:].all(), "the wire is filled by then"


def test_seams_and_detail_leave_known_pixels_and_close_the_step(recorder: Recorder) -> None:
    """A flat photo with grain, and a network that answers with another colour."""
    grain = RNG.integers(-20, 21, (200, 200, 1))
    array = (np.full((200, 200, 3), 128) + grain).astype(np.uint8)
    known = np.ones((200, 200), bool)
    known[60:140, 60:140] = False
    model = Inpainter(recorder, SpatialDiffusion(1), work_size=40)
    plain = model(array, known, seams=False, detail=False).array.astype(float)
    result = model(array, known).array
    np.testing.assert_array_equal(result[known], array[known])
    inside = result[62:138, 62:138].astype(float)
    assert abs(inside[:4].mean() - 128) < 6
    assert abs(plain[64:68, 62:138, 0].mean() - 128) > 40, "red is 191 there"
    assert 0.6 < inside.std(axis=(0, 1)).mean() / array.std() < 1.4, "the grain goes on"
    assert plain[62:138, 62:138].std(axis=(0, 1)).mean() < 0.5 * array.std()


class Styled(nn.Module):
    """Keeps the styles that it is given; noise is its own style."""

    latent_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Identity()
        self.mapping.average = torch.tensor([1.0, 2.0])
        self.styles: list[Tensor] = []

    def forward(self, inputs: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
        self.styles.append(styles[0])
        return inputs[:, :3], inputs[:, :3]


def test_truncation_pulls_towards_the_average_style() -> None:
    styled = Styled()
    for truncation in (1.0, 0.5, 0.0):
        inpainter = Inpainter(styled, SpatialDiffusion(1))
        inpainter(picture(20, 20), holes(20, 20), truncation=truncation)
    whole, half, none = styled.styles
    torch.testing.assert_close(none, styled.mapping.average)
    torch.testing.assert_close(half, (whole + none) / 2)
    assert not torch.equal(whole, none)


def test_samples_differ_by_seed_and_by_nothing_else(tiny_weights: Path) -> None:
    inpainter = Inpainter.from_pretrained(tiny_weights)
    array, known = picture(50, 40), holes(50, 40)
    three = inpainter(array, known, num_samples=3, seed=7)
    assert [sample.seed for sample in three.samples] == [7, 8, 9]
    alone = inpainter(array, known, seed=8)
    np.testing.assert_array_equal(three.samples[1].array, alone.array)
    assert (three.samples[0].array != three.samples[1].array).any()
    torch.manual_seed(99)  # the global generator plays no part
    np.testing.assert_array_equal(inpainter(array, known, seed=8).array, alone.array)
    fixed = inpainter(array, known, num_samples=2, truncation=0.0, num_iterations=1)
    np.testing.assert_array_equal(fixed.samples[0].array, fixed.samples[1].array)


def test_first_hole_equals_the_loop_called_by_hand(tiny_weights: Path) -> None:
    generator, info = load_generator(tiny_weights)
    array, known = picture(24, 32), holes(24, 32)
    result = Inpainter.from_pretrained(tiny_weights)(array, known, seed=3, seams=False)
    source = torch.Generator().manual_seed(3)
    styles = generator.mapping(torch.randn(8, generator=source)[None])  # type: ignore[operator]
    image = torch.from_numpy(array.astype(np.float32) * np.float32(2 / 255) - 1)
    step = info.build_diffusion()(
        lambda inputs: generator(inputs, styles),
        image.permute(2, 0, 1)[None],
        torch.from_numpy(known.astype(np.float32))[None, None],
        generator=[source],
    )
    expected = (step.completed[0].permute(1, 2, 0).numpy() + 1) * 127.5
    np.testing.assert_array_equal(result.array, np.rint(expected).clip(0, 255).astype(np.uint8))


def test_pictures_in_pictures_out(tiny_weights: Path, tmp_path: Path) -> None:
    inpainter = Inpainter.from_pretrained(tiny_weights)
    known = holes(30, 20)
    grey = RNG.integers(0, 65536, (30, 20), dtype=np.uint16)
    result = inpainter(grey, known)
    assert result.array.dtype == np.uint16
    np.testing.assert_array_equal(result.array[known], grey[known])
    assert result.image.mode == "I;16"
    Image.fromarray(picture(30, 20)).save(tmp_path / "photo.png")
    Image.fromarray((~known).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    result = inpainter(tmp_path / "photo.png", tmp_path / "mask.png", mask_convention="hole-white")
    np.testing.assert_array_equal(result.mask, known)
    assert result.image.size == (20, 30)
    assert result.uncertainty_image.size == (20, 30)


def test_steps_are_not_kept_if_not_wanted(tiny_weights: Path) -> None:
    inpainter = Inpainter.from_pretrained(tiny_weights)
    result = inpainter(picture(40, 40), holes(40, 40), keep_steps=False)
    assert result.steps == []
    assert result.uncertainty.any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"num_iterations": 0}, "num_iterations"),
        ({"work_size": -1}, "work_size"),
        ({"context": np.inf}, "context is inf"),
        ({"context": 1e308}, r"context is 1e\+308; it must be a number from 0 to 1e6"),
        ({"truncation": np.nan}, "truncation is nan"),
        ({"seed": 1.5}, "seed is 1.5; choose a whole number"),
    ],
)
def test_options_out_of_range(recorder: Recorder, options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Inpainter(recorder)(picture(8, 8), holes(8, 8), **options)


def test_a_seed_of_numpy(tiny_weights: Path) -> None:
    inpainter, array, known = Inpainter.from_pretrained(tiny_weights), picture(8, 8), holes(8, 8)
    result = inpainter(array, known, seed=np.int64(3))  # type: ignore[arg-type]
    np.testing.assert_array_equal(result.array, inpainter(array, known, seed=3).array)


def test_a_missing_device_is_reported(recorder: Recorder) -> None:
    with pytest.raises(InputError, match="abacus"):
        Inpainter(recorder, device="abacus")


def test_a_network_stays_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdm_lightning.inference.inpainter.choose_device", torch.device)
    network = nn.Linear(7, 3, device="meta")
    assert Inpainter(network).device == network.weight.device == torch.device("meta")
    assert Inpainter(nn.Identity()).device == torch.device("cpu")


def test_heat_map_is_dark_to_bright() -> None:
    levels = np.asarray(heat_map(np.linspace(0, 1, 11, dtype=np.float32)[None])).sum(axis=2)[0]
    assert (np.diff(levels.astype(int)) > 0).all()
    assert levels[0] < 10


def test_each_iteration_of_each_cut_out_is_reported(recorder: Recorder) -> None:
    array, known = picture(96, 96), np.ones((96, 96), bool)
    known[4:12, 4:12] = False
    known[80:92, 70:90] = False
    steps: list[RegionStep] = []
    inpainter = Inpainter(recorder, SpatialDiffusion(num_iterations=3, alpha=0), work_size=24)
    result = inpainter(array, known, num_samples=2, on_step=steps.append, keep_steps=False)
    assert [(step.sample, step.iteration) for step in steps] == [
        (sample, iteration) for sample in (0, 1) for _ in result.boxes for iteration in (1, 2, 3)
    ]
    assert {step.region.box for step in steps} == set(result.boxes)
    for step in steps:
        assert step.completed.shape == (*step.mask.shape, 3)
        assert step.mask.all() == (step.iteration == 3)
        # The Recorder's log variance runs from -4 to 0: deviations from exp(-2) to 1.
        assert step.deviation[0, 0] == pytest.approx(np.exp(-2), rel=1e-5)
        assert step.num_iterations == 3


def test_what_on_step_raises_ends_the_call(recorder: Recorder) -> None:
    def stop(step: RegionStep) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Inpainter(recorder)(picture(16, 16), holes(16, 16), on_step=stop)
    assert len(recorder.inputs) == 1


def test_bfloat16_is_close_and_unknown_precisions_are_refused(tiny_weights: Path) -> None:
    inpainter = Inpainter.from_pretrained(tiny_weights)
    array, known = picture(32, 32), holes(32, 32)
    exact = inpainter(array, known, num_iterations=1).array.astype(int)
    rough = inpainter(array, known, num_iterations=1, precision="bf16-mixed").array
    assert 0 < np.abs(exact - rough)[~known].max() < 16
    np.testing.assert_array_equal(rough[known], array[known])
    with pytest.raises(InputError, match="'16': choose 32-true, bf16-mixed or auto"):
        inpainter(array, known, precision="16")  # type: ignore[arg-type]


def test_detail_is_for_cut_outs_and_never_for_a_picture_seen_whole(recorder: Recorder) -> None:
    """Of a larger picture also where a hole's cut-out is as large as the network's input."""
    array, known = picture(64, 96), np.ones((64, 96), bool)
    known[30:34, 40:44] = False
    seen_whole, cut_out = (Inpainter(recorder, work_size=size) for size in (96, 32))
    for model, same in ((seen_whole, True), (cut_out, False)):
        results = [
            model(array, known, detail=detail, seams=False).array for detail in (True, False)
        ]
        assert np.array_equal(*results) is same
    assert recorder.inputs[-1].shape[2:] == (32, 32)
