import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.features.extractors import (
    InceptionFeatures,
    RandomConvFeatures,
    build_features,
)
from sdm_lightning.files import sha256_of_file


@pytest.fixture(scope="module")
def inception(inception_file):
    return InceptionFeatures(inception_file, sha256_of_file(inception_file)[:8])


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 40, 56), generator=generator).to(torch.uint8)


def test_features_are_torch_fidelitys(inception, inception_file, images):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    reference = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=inception_file
    )
    expected = reference(images)[0]
    assert expected.std() > 0.01
    found = inception.extract(images)
    assert torch.equal(found, expected)
    # Floats are quantised by rounding, and bfloat16 autocast does not reach the network.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = inception.extract(images.float() / 127.5 - 1)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_unpublished_weights_stand_in_the_label(inception, inception_file):
    digest = sha256_of_file(inception_file)
    assert inception.label == f"inception-v3-compat-{digest[:8]}"
    assert inception.sha256 == digest


def test_wrong_weights_are_refused(tmp_path, inception_file):
    with pytest.raises(InputError, match="expected 6726825d"):
        InceptionFeatures(inception_file)
    other = tmp_path / "other.pth"
    torch.save({"w": torch.zeros(1)}, other)
    with pytest.raises(InputError, match="its tensors are not those of weights-inception"):
        InceptionFeatures(other, sha256_of_file(other)[:8])


def test_missing_weights_never_fall_back(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"6726825d\.pth: no such file.*or random-conv"):
        build_features("inception-v3-compat")


def test_training_mode_does_not_reach_batch_norm(inception):
    inception.train()
    assert not any(module.training for module in inception.modules())


def test_stand_in_is_fixed_and_named(images):
    a, b = build_features("random-conv"), RandomConvFeatures()
    assert a.label == a.name == "random-conv"
    assert a.sha256 == b.sha256 != RandomConvFeatures(seed=1).sha256
    rows = a.extract(images)
    assert rows.shape == (2, a.dim)
    assert torch.equal(rows, b.extract(images))
    assert not torch.equal(rows[0], rows[1])


def test_unknown_names_are_refused():
    assert build_features(None) is None
    with pytest.raises(InputError, match="'vgg' is unknown"):
        build_features("vgg")
    with pytest.raises(InputError, match="takes no weights"):
        build_features("random-conv", "file.pth")
