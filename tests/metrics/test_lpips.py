import pytest
import torch

from sdm_lightning.errors import InputError
from sdm_lightning.files import sha256_of_file
from sdm_lightning.metrics.lpips import LPIPS


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 3, 64, 48), generator=generator).to(torch.uint8)
    other = image.clone()
    other[1, :, 20:40] = 128
    other[2] = 255 - other[2]
    return other, image


def test_distance_is_torchmetrics_with_the_same_weights(alexnet_file, pair):
    from torchmetrics.functional.image.lpips import _LPIPS

    network = LPIPS(alexnet_file, sha256_of_file(alexnet_file)[:8])
    reference = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    state = torch.load(alexnet_file)
    for name, parameter in reference.net.named_parameters():
        parameter.data.copy_(state["features." + name.split(".", 1)[1]])
    scaled = [x.float() / 127.5 - 1 for x in pair]
    with torch.no_grad():
        expected = reference(*scaled).flatten()
    found = network(*pair)
    assert found[0] == 0
    # torchmetrics adds its epsilon inside the root, the reference package outside.
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert found[1] > 0.001
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(*pair), found)


def test_names_and_refusals(alexnet_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        InputError, match=r"7be5be79\.pth: no such file.*lpips=null, with distance="
    ):
        LPIPS()
    with pytest.raises(InputError, match="expected 7be5be79"):
        LPIPS(alexnet_file)
    other = tmp_path / "x.pth"
    torch.save({"w": torch.zeros(1)}, other)
    with pytest.raises(InputError, match="not the state dict of torchvision's AlexNet"):
        LPIPS(other, sha256_of_file(other)[:8])
    digest = sha256_of_file(alexnet_file)
    assert LPIPS(alexnet_file, digest[:8]).label == f"alex-{digest[:8]}"


def test_distance_orders_distortions_and_stays_in_evaluation_mode(alexnet_file, pair):
    network = LPIPS(alexnet_file, sha256_of_file(alexnet_file))
    none, part, whole = network(*pair).tolist()
    assert none == 0 < part < whole
    assert not network.train().network.training
    assert network(pair[0][..., :31, :], pair[1][..., :31, :]).isnan().all()
