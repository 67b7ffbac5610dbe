import numpy as np

from sdm_lightning.inference.detail import _choose, _compose, add_detail
from sdm_lightning.inference.regions import enlarge, shrink


def two_textures() -> tuple[np.ndarray, np.ndarray]:
    """Dark with fine stripes on the left, bright and smooth on the right; a hole in both."""
    image = np.full((160, 320, 3), 0.5, np.float32)
    image[:, :160] = -0.5
    image[:, 0:160:2] += 0.3
    known = np.ones((160, 320), bool)
    known[60:100, 100:220] = False
    return image, known


def test_each_part_takes_the_detail_of_its_like() -> None:
    image, known = two_textures()
    small, _ = shrink(image, np.ones_like(known), 40)  # a network that guesses right
    filling = enlarge(small, 160, 320)
    result = add_detail(small, np.where(known[:, :, None], image, np.nan), known)
    striped, smooth = (slice(64, 96), slice(108, 148)), (slice(64, 96), slice(176, 212))
    assert filling[striped][:, :, 0].std(axis=1).mean() < 0.02
    steps = np.abs(np.diff(result[striped][:, :, 0], axis=1))
    assert abs(np.median(steps) - 0.3) < 0.03, "the stripes go on in step"
    assert result[smooth].std() < 0.02


def test_the_same_every_time_and_nothing_without_a_source() -> None:
    image, known = two_textures()
    small, _ = shrink(image, known, 40)
    filling = enlarge(small, 160, 320)
    first, second = (add_detail(small, image, known) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    nothing = np.zeros_like(known)
    np.testing.assert_array_equal(add_detail(small, image, nothing), filling)


def test_detail_comes_in_large_pieces_and_from_no_place_often() -> None:
    """Where a filling is smooth all sources fit, and a repeated one would draw a grid."""
    hole, usable = np.zeros((32, 32), bool), np.ones((32, 32), bool)
    hole[8:24, 8:24] = True
    usable[7:25, 7:25] = False
    targets = np.argwhere(hole)
    offsets = _choose(np.zeros((32, 32, 3), np.float32), targets, np.argwhere(usable))
    places, times = np.unique(targets + offsets, axis=0, return_counts=True)
    assert usable[tuple(places.T)].all()
    assert times.max() <= 3
    field = offsets.reshape(16, 16, 2)
    beside = [field[:, 1:] == field[:, :-1], field[1:] == field[:-1]]
    assert np.mean([same.all(axis=2).mean() for same in beside]) > 0.7


def test_blocks_from_the_border_end_as_softly_as_others() -> None:
    """Two cells beside each other take detail from the right and the left end of the picture."""
    image = np.zeros((8, 64, 3), np.float32)
    image[:, 48:] = 1
    known = np.ones((8, 64), bool)
    known[:, 24:40] = False
    targets, offsets = np.array([[0, 3], [0, 4]]), np.array([[0, 4], [0, -4]])
    result = _compose(np.zeros_like(image), image, known, (1, 8), targets, offsets)
    assert result[0, 24, 0] == 1
    assert result[0, 39, 0] == 0
    assert np.abs(np.diff(result[:, 24:40], axis=1)).max() < 0.2


def test_small_networks_leave_more_of_the_scale_to_the_surroundings() -> None:
    """Stripes of four pixels stay as drawn at a working size of 512, and go at one of 128."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (512, 512, 3)).astype(np.float32)
    known = np.ones((512, 512), bool)
    known[192:320, 192:320] = False
    for size, least, most in ((128, -0.1, 0.1), (512, 0.8, 1.2)):
        stripes = np.where(np.arange(size) // 4 % 2, 0.5, -0.5).astype(np.float32)
        drawn = np.broadcast_to(stripes[:, None, None], (size, size, 3))
        small, small_known = shrink(image, known, size)
        result = add_detail(np.where(small_known[:, :, None], small, drawn), image, known)
        rows = result[200:312, 200:312].mean(axis=(1, 2))
        wanted = enlarge(drawn.copy(), 512, 512)[200:312, 0, 0]
        assert least < rows @ wanted / (wanted @ wanted) < most
