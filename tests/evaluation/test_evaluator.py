import math
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sdm_lightning.errors import InputError
from sdm_lightning.evaluation import Evaluation, Evaluator, RealFeatureCache
from sdm_lightning.features import RandomConvFeatures
from sdm_lightning.features.extractors import FeatureExtractor
from sdm_lightning.features.images import to_uint8
from sdm_lightning.metrics import ImageScore, inception_discriminative_scores
from sdm_lightning.metrics.feature_distance import FeatureDistance
from sdm_lightning.metrics.kid import kernel_distance
from sdm_lightning.metrics.paired import psnr, uncertainty_error_correlation

COUNT = 30
NAN = float("nan")


class CountingFeatures(RandomConvFeatures):
    """Counts the images that pass through it."""

    def __init__(self) -> None:
        super().__init__(dim=6)
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return super().forward(images)


class Brightness(ImageScore):
    """The mean of the result, of images with a hole; as uint8 alone can tell."""

    name = "brightness"
    better = "higher"

    def __call__(self, completed, original, mask):
        assert completed.dtype == original.dtype == torch.uint8
        value = completed.float().mean(dim=(1, 2, 3))
        return torch.where((mask < 0.5).flatten(1).any(dim=1), value, torch.nan)


def samples(count=COUNT):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1
    mask = (torch.rand(count, 1, 16, 16, generator=generator) > 0.4).float()
    mask[0] = 1
    mean = (image + torch.randn(image.shape, generator=generator) * 0.3).clamp(-1, 1)
    return {
        "completed": image * mask + mean * (1 - mask),
        "image": image,
        "mask": mask,
        "keys": [f"photo{i}" for i in range(count)],
        "uncertainty": torch.rand(count, 1, 16, 16, generator=generator),
        "mean": mean,
    }


def feed(evaluator, data, indices, batch=1):
    indices = list(indices)
    for start in range(0, len(indices), batch):
        chosen = indices[start : start + batch]
        evaluator.update(
            **{
                name: [value[i] for i in chosen] if isinstance(value, list) else value[chosen]
                for name, value in data.items()
            }
        )
    return evaluator


def test_one_pass_per_image_feeds_every_metric():
    data, network = samples(), CountingFeatures()
    evaluator = Evaluator(network, few_pairs=True, extra_scores=[Brightness()])
    found = feed(evaluator, data, range(COUNT), batch=8).compute()
    assert network.seen == 2 * COUNT
    fake, real = to_uint8(data["completed"]), to_uint8(data["image"])
    # The image without a hole is identical to its original: no PSNR, no hole-only scores.
    expected = psnr(fake, real)[1:].mean().item()
    assert found.metrics["psnr"] == pytest.approx(expected, rel=1e-12)
    assert found.counts["psnr"] == found.counts["psnr_hole"] == COUNT - 1
    assert found.counts["ssim"] == COUNT
    assert found.metrics["brightness"] == pytest.approx(fake[1:].double().mean().item(), rel=1e-6)
    assert found.counts["brightness"] == COUNT - 1
    assert found.better == {"brightness": "higher"}
    correlation = uncertainty_error_correlation(
        data["uncertainty"][1:], data["mean"][1:], real[1:].float() / 127.5 - 1, data["mask"][1:]
    )
    assert found.metrics["uncertainty_error_correlation"] == pytest.approx(
        correlation.mean().item(), abs=1e-12
    )
    scores = inception_discriminative_scores(
        network.extract(real), network.extract(fake), few_pairs=True
    )
    assert found.metrics["p_ids[random-conv,n<2500]"] == pytest.approx(scores[0])
    assert found.metrics["u_ids[random-conv,n<2500]"] == pytest.approx(scores[1])
    assert found.num_images == COUNT
    assert found.networks["features"]["sha256"] == network.sha256


def test_floats_in_memory_and_8_bit_files_give_the_same_numbers():
    data = samples()
    stored = {**data, "completed": to_uint8(data["completed"]), "image": to_uint8(data["image"])}
    results = [
        feed(Evaluator(RandomConvFeatures(6)), each, range(COUNT), batch=8).compute()
        for each in (data, stored)
    ]
    assert results[0] == results[1]


def test_identical_sets():
    data = samples()
    data["completed"] = data["image"]
    found = feed(Evaluator(RandomConvFeatures(6), few_pairs=True), data, range(COUNT), 8).compute()
    assert found.metrics["fid[random-conv]"] == pytest.approx(0, abs=1e-6)
    assert found.metrics["p_ids[random-conv,n<2500]"] == 0
    assert found.metrics["u_ids[random-conv,n<2500]"] == 50
    assert found.metrics["psnr"] == math.inf
    assert found.metrics["precision[random-conv]"] == 1


def test_scores_that_mean_nothing_are_refused_and_the_rest_reported():
    found = feed(Evaluator(RandomConvFeatures(6)), samples(3), range(3)).compute()
    assert set(found.refused) == {
        f"{name}[random-conv]" for name in ("p_ids", "u_ids", "precision", "recall")
    }
    assert "3 pairs; below 2500" in found.refused["p_ids[random-conv]"]
    assert "fid[random-conv]" in found.metrics
    assert not any(name.startswith(("p_ids", "u_ids")) for name in found.metrics)
    one = feed(Evaluator(RandomConvFeatures(6), kid=True), samples(1), range(1)).compute()
    asked = ("fid", "p_ids", "u_ids", "kid", "kid_deviation", "precision", "recall")
    assert set(one.refused) == {f"{name}[random-conv]" for name in asked}


class SmallLPIPS:
    """What LPIPS makes of images below 32 pixels."""

    label, sha256 = "", "0"

    def __call__(self, completed, image):
        return torch.full((len(image),), NAN)


def test_scores_that_small_images_do_not_have_are_left_out_with_the_reason():
    data = samples(2)
    for name in ("completed", "image", "mask", "uncertainty", "mean"):
        data[name] = data[name][..., :10]
    found = feed(Evaluator(lpips=SmallLPIPS()), data, range(2)).compute()
    assert found.refused == {
        "ssim": "images smaller than 11 pixels", "lpips": "images smaller than 32 pixels",
    }  # fmt: skip
    assert "lpips" not in feed(Evaluator(), data, range(2)).compute().refused


def test_no_image_or_one_twice():
    with pytest.raises(InputError, match="data set is empty"):
        Evaluator().compute()
    with pytest.raises(InputError, match="seen more than once"):
        feed(Evaluator(), samples(3), [0, 1, 1]).compute()


def test_sizes_must_agree():
    data = samples(1)
    data["completed"] = data["completed"][..., :8]
    with pytest.raises(InputError, match=r"photo0: the result is"):
        feed(Evaluator(), data, [0])


@pytest.mark.parametrize("name", ["completed", "uncertainty", "mean", "image"])
def test_a_value_that_is_not_finite_is_refused_with_its_image(name):
    data = samples(4)
    data[name][2, 0, 3, 3] = NAN
    noun = "original" if name == "image" else "result"
    with pytest.raises(InputError, match=f"^photo2: the {noun} holds a value that is not finite$"):
        feed(Evaluator(), data, range(4), batch=4)


def test_a_result_that_is_not_finite_makes_every_score_nan_where_that_is_allowed():
    """A validation during training, which must not take NaN for a black pixel."""
    data, evaluator = samples(5), Evaluator(RandomConvFeatures(6))
    data["completed"][2] = NAN
    evaluator.update(**data, allow_not_finite=True)
    found = evaluator.compute()
    assert found.num_not_finite == 1
    assert {"psnr", "ssim", "hole_ratio", "fid[random-conv]"} <= found.metrics.keys()
    assert all(math.isnan(value) for value in found.metrics.values())
    assert "not_finite" not in found.metrics


def test_originals_of_another_scale_are_refused():
    data = samples(2)
    data["image"] = to_uint8(data["image"]).float()
    with pytest.raises(InputError, match=r"^photo0: the original is not float in \[-1, 1\]"):
        feed(Evaluator(), data, range(2), batch=2)


def test_originals_in_0_to_1_are_refused_as_a_set():
    data = samples(9)
    for name in ("completed", "image"):
        data[name] = (data[name] + 1) / 2
    with pytest.raises(InputError, match=r"look as if they were in \[0, 1\]; pass 2 \* x - 1"):
        feed(Evaluator(), data, range(8)).compute()
    assert "lowest" not in feed(Evaluator(), data, range(7)).compute().metrics  # may be bright
    data["image"][8] -= 0.5
    feed(Evaluator(), data, range(9)).compute()
    data["image"] = to_uint8(data["image"])
    feed(Evaluator(), data, range(8)).compute()


def test_cached_originals_do_not_pass_the_network_again(tmp_path):
    data, network = samples(), CountingFeatures()
    results: list[Evaluation] = []
    for expected in (2 * COUNT, COUNT):
        cache = RealFeatureCache(tmp_path, {"set": "x"}, network.dim)
        network.seen = 0
        results.append(feed(Evaluator(network, cache=cache), data, range(COUNT), 8).compute())
        cache.save()
        assert network.seen == expected
    assert results[0] == results[1]
    data["image"][3, 0, 0, 0] *= -1  # a changed image is extracted again, with its batch of 8
    network.seen = 0
    feed(
        Evaluator(network, cache=RealFeatureCache(tmp_path, {"set": "x"}, network.dim)),
        data,
        range(COUNT),
        8,
    )
    assert network.seen == COUNT + 8


def worker(rank, folder, shards, results):
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(shards[0])
    )
    found = []
    for shard in shards:
        network: FeatureExtractor = RandomConvFeatures(6)
        evaluator = Evaluator(network, few_pairs=True, extra_scores=[Brightness()])
        found.append(feed(evaluator, samples(), shard[rank]).compute())
    results[rank] = found
    dist.destroy_process_group()


def test_any_split_over_processes_gives_one_processs_numbers(tmp_path):
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(3)).tolist()
    shards = [
        (order[::2], order[1::2]),  # even, shuffled
        (order[:23], order[23:]),  # uneven
        (order, []),  # one process without any image
    ]
    with mp.get_context("fork").Manager() as manager:
        results = manager.dict()
        mp.start_processes(
            worker, args=(str(tmp_path), shards, results), nprocs=2, start_method="fork"
        )
        both = dict(results)
    single = Evaluator(RandomConvFeatures(6), few_pairs=True, extra_scores=[Brightness()])
    expected = feed(single, samples(), range(COUNT)).compute()
    assert "brightness" in expected.metrics
    for split in range(len(shards)):
        assert both[0][split] == both[1][split]
        found = both[0][split]
        assert found.metrics == pytest.approx(expected.metrics, rel=1e-12, abs=1e-9)
        assert (found.counts, found.num_images) == (expected.counts, expected.num_images)
        assert (found.images_digest, found.masks_digest) == (
            expected.images_digest,
            expected.masks_digest,
        )


@pytest.mark.parametrize(
    ("name", "better"),
    [("psnr", "higher"), ("fid_quick", "lower"), ("hole_ratio", "lower"), ("not_finite", "lower"),
     ("lowest", "lower"), ("a/b", "lower"), ("", "lower"), (None, "lower"), ("own", "more"),
     ("own", None)],
)  # fmt: skip
def test_an_extra_score_with_an_unfit_name_or_direction(name, better):
    own = type("Own", (Brightness,), {"name": name, "better": better})()
    says = rf"extra_scores: Own has name {name!r} and better {better!r}; give it a name"
    with pytest.raises(InputError, match=says):
        Evaluator(extra_scores=[own])


def test_extra_scores_that_share_a_name_or_return_something_else():
    with pytest.raises(InputError, match="Brightness has name 'brightness'"):
        Evaluator(extra_scores=[Brightness(), Brightness()])

    class Scalar(Brightness):
        def __call__(self, *args):
            return super().__call__(*args).mean()

    says = r"Scalar returned a tensor \(\); it must return one number per image, \(2,\)"
    with pytest.raises(InputError, match=says):
        feed(Evaluator(extra_scores=[Scalar()]), samples(2), range(2), batch=2)


def test_kid_and_feature_distance_carry_their_networks_name() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (12, 3, 32, 32), generator=generator).to(torch.uint8)
    fake = torch.randint(0, 128, (12, 3, 32, 32), generator=generator).to(torch.uint8)
    features = RandomConvFeatures(dim=16)
    distance = FeatureDistance("efficientnet-lite0")
    evaluator = Evaluator(features, distance=distance, ids=False, kid=True, precision_recall=False)
    for part in (slice(0, 5), slice(5, 12)):
        keys = [f"image{k:02d}" for k in range(12)[part]]
        evaluator.update(fake[part], real[part], None, keys)
    found = evaluator.compute()
    # Rows are sorted by key's hash, which moves the subsets but not what they estimate.
    expected, deviation = kernel_distance(features.extract(real), features.extract(fake))
    assert abs(found.metrics["kid[random-conv]"] - expected) < deviation
    assert found.metrics["kid_deviation[random-conv]"] > 0
    assert found.metrics["feature_distance[efficientnet-lite0]"] == pytest.approx(
        distance(fake, real).mean().item(), rel=1e-4
    )
    assert found.networks["feature_distance"]["name"] == "efficientnet-lite0"
    few = Evaluator(features, ids=False, kid=True, precision_recall=False)
    few.update(fake[:3], real[:3], None, ["a", "b", "c"])
    assert few.compute().refused["kid[random-conv]"] == "needs at least 4 images"
