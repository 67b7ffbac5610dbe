"""Scores are found by the names under which they are logged and recorded."""

import pytest

from sdm_lightning.metrics.paired import PAIRED_NAMES
from sdm_lightning.scores import SCORES, Score, find_score


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("fid", Score("lower")),
        ("val/kid_quick[efficientnet-lite2]", Score("lower", "x 1000")),
        ("p_ids[inception,n<2500]/places36500-512-large", Score("higher", "%")),
        ("psnr_hole/custom", Score("higher", "dB")),
        ("val/beauty", None),
    ],
)
def test_names_with_stage_protocol_and_brackets(name: str, score: Score | None) -> None:
    assert find_score(name) == score


def test_every_paired_score_has_a_direction() -> None:
    assert set(PAIRED_NAMES) - set(SCORES) == {"hole_ratio"}  # a fact of the masks, no score
