"""Seeds that must never change: resumed runs and frozen masks depend on them."""

from sdm_lightning.seeding import stable_rng, stable_seed

SEED_OF_PHOTO = 8713144591579092179


def test_known_value():
    assert stable_seed(0, "photo") == SEED_OF_PHOTO


def test_parts_are_distinguished():
    seeds = {stable_seed(0, "photo"), stable_seed(1, "photo"), stable_seed("0", "photo")}
    assert len(seeds | {stable_seed("a", "b"), stable_seed("ab")}) == 5
    assert all(0 <= stable_seed(i) < 2**63 for i in range(100))


def test_generator_repeats():
    assert stable_rng("x", 3).integers(1 << 30) == stable_rng("x", 3).integers(1 << 30)
