"""Every target refuses damaged input in one line; ``make fuzz`` tries many more than these."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import damaged
from tests.fuzz.targets import TARGETS, feed
from tests.fuzz.valid_input import seeds

BUDGET = {"weights": 25, "checkpoint": 25, "inpaint": 15}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_valid_input_is_accepted(name: str, tmp_path: Path) -> None:
    """Otherwise the mutations below would test the first check alone."""
    accepted = [feed(name, data, tmp_path) for data in seeds(name)]
    assert any(accepted)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_damaged_input_is_refused_in_one_line(name: str) -> None:
    corpus = seeds(name)

    @settings(
        max_examples=BUDGET.get(name, 40), deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(number=st.integers(0, 2**32), raw=st.binary(max_size=600))
    def attack(number: int, raw: bytes) -> None:
        rng = random.Random(number)
        with tempfile.TemporaryDirectory() as folder:
            for attempt in (damaged(name, corpus, rng), damaged(name, corpus, rng), raw):
                feed(name, attempt, Path(folder))

    attack()
