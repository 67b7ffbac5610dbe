import numpy as np
import pytest

from sdm_lightning.inference.regions import (
    enlarge,
    hole_regions,
    pad_to_stride,
    shrink,
)

RNG = np.random.default_rng(0)


def random_holes(height: int, width: int, count: int) -> np.ndarray:
    known = np.ones((height, width), bool)
    for _ in range(count):
        top, left = RNG.integers(0, height), RNG.integers(0, width)
        known[top : top + RNG.integers(1, 30), left : left + RNG.integers(1, 30)] = False
    return known


@pytest.mark.parametrize("count", [0, 1, 5, 40])
@pytest.mark.parametrize("size", [(1, 1), (37, 211), (200, 150)])
def test_every_hole_pixel_is_filled_once(count: int, size: tuple[int, int]) -> None:
    known = random_holes(*size, count)
    filled = np.zeros(size, int)
    for region in hole_regions(known, 0.5, 32):
        assert region.target.any()
        assert region.box.height >= min(32, size[0])
        assert region.box.width >= min(32, size[1])
        filled[region.box.slices] += region.target
    np.testing.assert_array_equal(filled, (~known).astype(int))


def test_context_surrounds_the_hole_and_stays_in_the_picture() -> None:
    known = np.ones((300, 400), bool)
    known[100:140, 200:220] = False
    (region,) = hole_regions(known, 0.5, 16)
    assert region.box.slices == (slice(80, 160), slice(170, 250))
    known[:] = True
    known[0:40, 380:400] = False
    (region,) = hole_regions(known, 0.5, 16)
    assert region.box.slices == (slice(0, 80), slice(320, 400))


def test_distant_holes_apart_and_specks_together() -> None:
    known = np.ones((400, 400), bool)
    known[20:60, 20:60] = False
    known[300:340, 300:340] = False
    assert len(hole_regions(known, 0.5, 16)) == 2
    known[:] = True
    known[::3, ::3] = False  # 17,956 specks
    assert len(hole_regions(known, 0.5, 64)) < 200


def test_a_hole_within_the_cut_out_of_one_of_its_size_is_filled_with_it() -> None:
    known = np.ones((500, 500), bool)
    known[200:300, 200:300] = False  # its cut-out is 100:400, without margin 137:363
    for hole, count in (
        ((slice(225, 275), slice(310, 360)), 1),
        ((slice(225, 275), slice(320, 370)), 2),  # too near to the cut-out's edge
        ((slice(245, 255), slice(320, 330)), 2),  # small: it would be shrunk with the large one
    ):
        both = known.copy()
        both[hole] = False
        assert len(hole_regions(both, 1.0, 16)) == count


def test_thin_and_thick_parts_of_a_hole_apart() -> None:
    """A lamp on a wire, with a wider cable at its other end: each by its own width."""
    known = np.ones((1200, 1600), bool)
    known[600:1000, 100:500] = False
    known[798:802, 500:1100] = False
    known[780:820, 1100:1580] = False
    regions = hole_regions(known, 0.5, 64)
    filled = np.zeros(known.shape, int)
    for region in regions:
        filled[region.box.slices] += region.target
    np.testing.assert_array_equal(filled, (~known).astype(int))
    assert 800 <= regions[0].box.side <= 840, "the lamp's box is twice its size"
    wire = [r for r in regions if r.box.left + r.box.width // 2 in range(540, 1060)]
    assert wire
    assert max(r.box.side for r in wire) <= 64
    cable = [r for r in regions if r.box.left + r.box.width // 2 in range(1150, 1560)]
    assert max(r.box.side for r in cable) <= 4 * 40


def test_pieces_of_two_wires_and_both_ends_of_one_have_cut_outs_of_their_own() -> None:
    known = np.ones((600, 600), bool)
    known[100:103, 50:550] = known[500:503, 50:550] = False
    assert max(region.box.side for region in hole_regions(known, 0.5, 64)) == 64
    known[:] = True
    known[270:330, 20:80] = known[270:330, 520:580] = known[298:301, 80:520] = False
    sides = sorted(region.box.side for region in hole_regions(known, 0.5, 64))
    assert sides[-1] <= 130
    assert sides[-3] == 64


def test_a_thick_hole_stays_whole() -> None:
    rows, columns = np.indices((400, 500))
    for hole in (
        (rows - 200) ** 2 + (columns - 250) ** 2 < 150**2,
        (abs(rows - 200) < 100) & (abs(columns - 250) < 150),
        abs(rows - 200) + abs(columns - 250) < 140,
    ):
        assert len(hole_regions(~hole, 0.5, 32)) == 1


def test_shrinking_averages_known_pixels_only() -> None:
    image = np.zeros((4, 8, 3), np.float32)
    known = np.ones((4, 8), bool)
    image[:, :4] = 0.25
    image[0, 4:] = 0.75
    image[1:, 4:] = np.nan
    known[1:, 4:] = False
    image[:2, 0] = np.inf
    known[:2, 0] = False  # an eighth of its cell
    small, small_known = shrink(image, known, 2)
    np.testing.assert_array_equal(small_known, [[True, False]])
    np.testing.assert_allclose(small[0, 0], 0.25, atol=1e-6)
    np.testing.assert_array_equal(small[0, 1], 0)


def test_small_cutouts_are_not_resized() -> None:
    image = RNG.random((20, 30, 3)).astype(np.float32)
    known = np.ones((20, 30), bool)
    for limit in (None, 30, 64):
        np.testing.assert_array_equal(shrink(image, known, limit)[0], image)
    assert enlarge(image, 20, 30) is image


def test_enlarging_keeps_constants() -> None:
    for values in (np.full((3, 5, 3), 0.3, np.float32), np.full((3, 5), 0.3, np.float32)):
        np.testing.assert_allclose(enlarge(values, 17, 40), 0.3, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (32, 33), (5, 64)])
def test_padding_mirrors(height: int, width: int) -> None:
    values = RNG.random((height, width))
    padded = pad_to_stride(values, 32)
    assert padded.shape[0] % 32 == padded.shape[1] % 32 == 0
    assert padded.shape[0] - height < 32
    np.testing.assert_array_equal(padded[:height, :width], values)
    if padded.shape[1] > width:
        np.testing.assert_array_equal(padded[:height, width], values[:, -1])
