"""Perceptual losses: where the weights come from, and what the numbers are."""

import copy
import hashlib

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from sdm_lightning.errors import InputError
from sdm_lightning.losses import (
    PerceptualLoss,
    PixelPyramidLoss,
    ResNetPerceptualLoss,
    WeightedPerceptualLoss,
)

TO_ADE20K = {
    "conv1.0.": "conv1.",
    "conv1.1.": "bn1.",
    "conv1.3.": "conv2.",
    "conv1.4.": "bn2.",
    "conv1.6.": "conv3.",
    "bn1.": "bn3.",
}


def images(seed, size=32, batch=2):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 8, 8, generator=generator) * 2 - 1
    return F.interpolate(coarse, (size, size), mode="bilinear")


def normalized(x):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x * 0.5 + 0.5 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


@pytest.fixture(scope="module")
def network():
    """A resnet50s with random weights and random batch-norm statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = timm.create_model(
            "resnet50s", features_only=True, output_stride=8, out_indices=(1, 2, 3, 4)
        )
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 1.0)
                module.bias.data.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def features(network):
    """Of images 0 and 1, computed without any of the package's code."""
    return [network(normalized(images(seed))) for seed in (0, 1)]


@pytest.fixture(scope="module")
def ade20k_state(network):
    """The same weights as CSAIL's training code would have saved them."""
    state = {}
    for key, value in network.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        for new, old in TO_ADE20K.items():
            if key.startswith(new):
                key = old + key.removeprefix(new)
                break
        state[key] = value.clone()
        if key.endswith("running_mean"):
            stem = key.removesuffix("running_mean")
            state[stem + "_tmp_running_mean"] = torch.zeros_like(value)
            state[stem + "_tmp_running_var"] = torch.ones_like(value)
            state[stem + "_running_iter"] = torch.ones(1)
    assert state["conv1.weight"].shape == (64, 3, 3, 3)
    assert state["bn3.weight"].shape == (128,)
    return state


@pytest.fixture(scope="module")
def ade20k_file(ade20k_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "encoder_epoch_20.pth"
    torch.save(ade20k_state, path)
    return path


@pytest.fixture(scope="module")
def random_loss(ade20k_file):
    loss = ResNetPerceptualLoss(str(ade20k_file))
    loss.prepare()
    return loss


def test_ade20k_file_gives_the_features_it_was_made_from(features, ade20k_file):
    loss = ResNetPerceptualLoss(str(ade20k_file))
    found = loss.encode(images(0))
    assert loss.name == "resnet50s-ade20k"
    assert [tuple(f.shape[1:]) for f in found] == [
        (256, 8, 8), (512, 4, 4), (1024, 4, 4), (2048, 4, 4)
    ]  # fmt: skip
    for a, b in zip(found, features[0], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_in_timms_own_layout(network, features, tmp_path, suffix):
    path = tmp_path / f"my weights{suffix}"
    state = dict(network.state_dict()) | {"fc.weight": torch.zeros(1000, 2048)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loss = ResNetPerceptualLoss(str(path))
    assert loss.name == "resnet50s-my-weights"
    assert torch.equal(loss.encode(images(0))[3], features[0][3])


def test_loss_is_the_squared_distance_of_the_features(features, ade20k_file):
    loss = ResNetPerceptualLoss(str(ade20k_file))
    squares = [(f - g) ** 2 for f, g in zip(*features, strict=True)]
    for reduction in ("mean", "sum"):
        loss = ResNetPerceptualLoss(str(ade20k_file), reduction=reduction)
        expected = sum(getattr(s, reduction)((1, 2, 3)) for s in squares)
        found = loss.distance(*features)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss(images(0), images(1)), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss(images(0), features[1]), expected, rtol=1e-5, atol=1e-6)


def error_of(loss):
    with pytest.raises(InputError) as caught:
        loss.prepare()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_file(tmp_path):
    path = tmp_path / "nowhere.pth"
    message = error_of(ResNetPerceptualLoss(str(path)))
    assert str(path) in message
    assert "perceptual.weights" in message
    assert "no such weights file" in message


def test_file_with_an_unknown_tensor(ade20k_state, tmp_path):
    path = tmp_path / "encoder.pth"
    torch.save(ade20k_state | {"head": torch.zeros(1)}, path)
    message = error_of(ResNetPerceptualLoss(str(path)))
    assert all(word in message for word in ("has the unknown", "head", str(path)))


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        (lambda state: state.pop("layer3.4.conv2.weight"), "layer3.4.conv2.weight"),
        (lambda state: state.pop("bn3.running_var"), "bn1.running_var"),
        (
            lambda state: state.update({"conv2.weight": torch.zeros(64, 64, 1, 1)}),
            "conv1.3.weight",
        ),
    ],
)
def test_file_of_another_network(ade20k_state, tmp_path, damage, first):
    state = dict(ade20k_state)
    damage(state)
    path = tmp_path / "encoder.pth"
    torch.save(state, path)
    message = error_of(ResNetPerceptualLoss(str(path)))
    assert f"do not fit resnet50s, the first is {first}" in message


def test_hash_is_checked(ade20k_file):
    right = hashlib.sha256(ade20k_file.read_bytes()).hexdigest()
    for good in (right, right[:8], right[:8].upper()):
        ResNetPerceptualLoss(str(ade20k_file), sha256=good).prepare()
    message = error_of(ResNetPerceptualLoss(str(ade20k_file), sha256="0" * 64))
    assert right in message
    assert "0" * 64 in message


def test_imagenet_weights_out_of_reach_say_what_to_do(monkeypatch):
    def unreachable(*args, **options):
        assert options["pretrained"]
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr(timm, "create_model", unreachable)
    message = error_of(ResNetPerceptualLoss())
    for words in ("imagenet", "no route to host", "cache", "path", "PixelPyramidLoss"):
        assert words in message


def test_imagenet_weights_come_from_timms_pretrained_model(monkeypatch, network, features):
    asked = []

    def create_model(name, **options):
        asked.append((name, options))
        return copy.deepcopy(network)

    monkeypatch.setattr(timm, "create_model", create_model)
    loss = ResNetPerceptualLoss("imagenet")
    assert torch.equal(loss.encode(images(0))[3], features[0][3])
    assert loss.name == "resnet50s-imagenet"
    assert asked[0][0] == "resnet50s.gluon_in1k"
    assert asked[0][1]["pretrained"] is True


def test_a_wrong_reduction_is_refused():
    with pytest.raises(InputError, match="choose mean or sum"):
        ResNetPerceptualLoss(reduction="total")


class Model(nn.Module):
    def __init__(self, perceptual):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.perceptual = perceptual


def test_frozen_network_is_neither_saved_nor_trained_nor_counted(random_loss):
    model = Model(random_loss)
    assert set(model.state_dict()) == {"layer.weight", "layer.bias"}
    assert len(list(model.parameters())) == 2
    model.load_state_dict(Model(PixelPyramidLoss()).state_dict(), strict=True)
    model.requires_grad_(True)
    before = [f.clone() for f in random_loss.encode(images(0))]
    model.train()
    after = random_loss.encode(images(0))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(f.requires_grad for f in after)


def test_copies_and_precision_changes_leave_the_features_alone(random_loss):
    expected = random_loss(images(0), images(1))
    duplicate = copy.deepcopy(random_loss)
    assert duplicate._network[0] is not random_loss._network[0]
    assert torch.equal(duplicate(images(0), images(1)), expected)
    assert torch.equal(duplicate.bfloat16().half()(images(0), images(1)), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = duplicate(images(0), images(1))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_loading_leaves_the_runs_random_numbers_alone(random_loss, ade20k_file):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with torch.inference_mode():
        loss = ResNetPerceptualLoss(str(ade20k_file))
        loss.prepare()
    assert torch.equal(torch.rand(4), expected)
    prediction = images(0).requires_grad_()
    value = loss(prediction, images(1))
    assert torch.equal(value, random_loss(images(0), images(1)))
    value.sum().backward()  # loaded in inference mode, and still fit for training
    assert prediction.grad.abs().sum() > 0


def test_nothing_is_loaded_before_it_is_needed(tmp_path):
    loss = ResNetPerceptualLoss(str(tmp_path / "not there.pth"))  # fine: never asked
    copy.deepcopy(loss).to("cpu").train()
    assert loss._network == []


def test_pixel_pyramid_by_hand():
    a, b = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    b[1, 0, 0, 0] = 0.8  # one pixel: 0.8 at full size, 0.2 at half, 0.05 at a quarter
    loss = PixelPyramidLoss(levels=3)
    expected = 0.8 / 48 + 0.2 / 12 + 0.05 / 3
    torch.testing.assert_close(loss(a, b), torch.tensor([0.0, expected]))
    assert loss.name == "pixel-pyramid"


def test_pixel_pyramid_sends_gradients_to_the_prediction_only():
    prediction, target = images(0).requires_grad_(), images(1).requires_grad_()
    loss = PixelPyramidLoss()
    loss(prediction, loss.encode(target)).sum().backward()
    assert prediction.grad.abs().sum() > 0
    assert target.grad is None
    assert not loss.state_dict()


def test_pixel_pyramid_too_many_levels():
    with pytest.raises(InputError, match="too many for images of 4x8"):
        PixelPyramidLoss(levels=4)(torch.zeros(1, 3, 4, 8), torch.zeros(1, 3, 4, 8))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("encode", "distance", "says"),
    [
        (lambda x: x, lambda a, b: a, r"Own\.encode returned a tensor \(2, 3, 8, 8\); .* a list"),
        (lambda x: [x], lambda a, b: None, r"Own\.distance returned NoneType; .* per image"),
        (lambda x: [x], lambda a, b: (a[0] - b[0]).mean(), r"returned a tensor \(\); .* per image"),
        (lambda x: [x], lambda a, b: a[0] - b[0], r"a tensor \(2, 3, 8, 8\); .* per image"),
    ],
)
def test_a_loss_of_ones_own_that_returns_something_else(encode, distance, says, weighted):
    class Own(PerceptualLoss):
        name = "own"

        def encode(self, images):
            return encode(images)

        def distance(self, prediction, target):
            return distance(prediction, target)

    loss = WeightedPerceptualLoss([Own()], [1.0]) if weighted else Own()
    target = images(0, size=8)
    with pytest.raises(InputError, match=says):
        loss(images(1, size=8), loss.encode(target) if not weighted else target)
