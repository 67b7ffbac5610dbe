"""Names of scores are built and read; scores are found by them."""

import pytest

from sdm_lightning.metrics.paired import PAIRED_NAMES
from sdm_lightning.scores import (
    SCORES,
    find_score,
    metric_name,
    quick_name,
    split_metric,
)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("fid", "fid"),
        ("val/kid_quick[efficientnet-lite2]", "kid"),
        ("p_ids[inception,n<2500]/places36500-512-large", "p_ids"),
        ("psnr_hole/custom", "psnr_hole"),
        ("val/beauty", ""),
    ],
)
def test_names_with_stage_protocol_and_brackets(name: str, score: str) -> None:
    assert find_score(name) == SCORES.get(score)


def test_every_paired_score_has_a_direction() -> None:
    assert set(PAIRED_NAMES) - set(SCORES) == {"hole_ratio"}  # a fact of the masks, no score


def test_names_with_labels() -> None:
    assert metric_name("fid") == metric_name("fid", "") == "fid"
    assert metric_name("p_ids", "random-conv", "n<2500") == "p_ids[random-conv,n<2500]"


def test_quick_names() -> None:
    assert quick_name("fid") == "fid_quick"
    assert quick_name("p_ids[random-conv,n<2500]") == "p_ids_quick[random-conv,n<2500]"
    assert quick_name("psnr_hole") == "psnr_hole"


def test_names_are_split() -> None:
    assert split_metric("fid[random-conv]/demo-64") == ("fid", "random-conv", "demo-64")
    assert split_metric("p_ids[random-conv,n<2500]") == ("p_ids", "random-conv,n<2500", "")
    assert split_metric("psnr_hole") == ("psnr_hole", "", "")
