"""Scores are computed where the images lie, on a device that has shapes only."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sdm_lightning.evaluation.convention_guard import ConventionGuard
from sdm_lightning.features.extractors import ImageNetworkFeatures, RandomConvFeatures
from sdm_lightning.files import sha256_of_file
from sdm_lightning.metrics.feature_distance import FeatureDistance
from sdm_lightning.metrics.lpips import LPIPS
from sdm_lightning.metrics.paired import paired_scores
from sdm_lightning.metrics.state import PerImageScores
from tests.shapes_only import DEVICE, shapes_only, to_device


def images() -> torch.Tensor:
    return torch.empty(2, 3, 64, 64, dtype=torch.uint8, device=DEVICE)


@pytest.mark.parametrize(("float64", "device"), [(True, DEVICE), (False, torch.device("cpu"))])
def test_paired_scores(
    monkeypatch: pytest.MonkeyPatch, float64: bool, device: torch.device
) -> None:
    with shapes_only(monkeypatch, float64=float64):
        scores = paired_scores(images(), images(), images()[:, :1])
    assert len(scores) == 6
    assert {score.device for score in scores.values()} == {device}


def test_scores_are_kept_without_float64_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with shapes_only(monkeypatch):
        guard, scores = ConventionGuard("masks"), PerImageScores(["lpips"])
        guard.update(images(), images(), images()[:, :1])
        digests = torch.zeros(2, 3, dtype=torch.int64)
        scores.update(["a", "b"], {"lpips": torch.empty(2, device=DEVICE)}, digests)
    assert scores.values[0].dtype == torch.float64


@pytest.mark.parametrize(
    "build",
    [
        lambda _: RandomConvFeatures(),
        lambda _: ImageNetworkFeatures("efficientnet-lite0"),
        lambda _: FeatureDistance("efficientnet-lite0"),
        lambda file: LPIPS(file, sha256_of_file(file)),
    ],
    ids=["random-conv", "network", "distance", "lpips"],
)
def test_networks(
    monkeypatch: pytest.MonkeyPatch, alexnet_file: Path, build: Callable[[Path], nn.Module]
) -> None:
    network = build(alexnet_file)
    with shapes_only(monkeypatch):
        to_device(network)
        extract = getattr(network, "extract", None)
        found = extract(images()) if extract is not None else network(images(), images())
    assert found.device == DEVICE
    assert len(found) == 2
