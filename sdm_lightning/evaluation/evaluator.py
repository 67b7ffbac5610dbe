"""The one evaluator behind ``sdm validate``, ``sdm test`` and ``sdm evaluate``."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from sdm_lightning.errors import InputError, require_one_per_image
from sdm_lightning.evaluation.cache import RealFeatureCache
from sdm_lightning.features.extractors import FeatureExtractor
from sdm_lightning.features.images import to_uint8
from sdm_lightning.metrics.feature_distance import FeatureDistance
from sdm_lightning.metrics.fid import FrechetInceptionDistance
from sdm_lightning.metrics.hashes import pixel_hashes, row_hashes
from sdm_lightning.metrics.ids import MIN_PAIRS, PairedFeatures, inception_discriminative_scores
from sdm_lightning.metrics.kid import MIN_IMAGES, kernel_distance
from sdm_lightning.metrics.lpips import LPIPS, LPIPS_MIN_SIZE
from sdm_lightning.metrics.paired import (
    PAIRED_NAMES,
    SSIM_WINDOW,
    ImageScore,
    paired_scores,
    refuse_unfit_scores,
    uncertainty_error_correlation,
)
from sdm_lightning.metrics.precision_recall import NEIGHBOURS, precision_recall
from sdm_lightning.metrics.state import PerImageScores, finite_mean
from sdm_lightning.scores import Better, metric_name

_NOT_FINITE = "not_finite"
_LOWEST = "lowest"  # value of a float original

_SMALLEST = {"ssim": SSIM_WINDOW, "lpips": LPIPS_MIN_SIZE}
"""Sides below which these scores do not exist."""

_ENOUGH_FLOATS = 8
"""Float originals are judged from so many on: a few pictures of sky may be bright all over."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found; the same on every process.

    Attributes:
        metrics: Value by name; a stand-in network is appended in brackets.
        counts: Number of images behind each metric.
        num_images: Images evaluated.
        refused: Requested metrics that would be meaningless, with the reason.
        images_digest: SHA-256 over keys and pixels of the originals as evaluated (8-bit, cropped).
        masks_digest: The same of the masks; None if there were none.
        networks: Name and SHA-256 of the networks behind the metrics.
        num_not_finite: Images whose result holds NaN or infinity; every score is then NaN.
        better: Name of each extra score -> which of its values are better.
        results_digest: SHA-256 over keys and pixels of the results as evaluated (8-bit, composited
            where they were).
    """

    metrics: dict[str, float]
    counts: dict[str, int]
    num_images: int
    refused: dict[str, str] = field(default_factory=dict)
    images_digest: str = ""
    masks_digest: str | None = None
    networks: dict[str, dict[str, str]] = field(default_factory=dict)
    num_not_finite: int = 0
    better: dict[str, Better] = field(default_factory=dict)
    results_digest: str = ""


class Evaluator:
    """Collects batches and computes every metric at the end.

    Each image passes once through the feature network, however many metrics use its features, and
    all metrics see the same 8-bit pixels, so results in memory and results read back from PNG files
    give the same numbers. Not a module: nothing here enters a checkpoint.

    Args:
        features: Network for FID, P-IDS, U-IDS, precision and recall; None leaves them out.
        lpips: Network for LPIPS; None leaves it out.
        distance: Network for the uncalibrated feature distance; None leaves it out.
        ids: P-IDS and U-IDS.
        kid: KID (times 1000) and its deviation over subsets; useful for few images.
        precision_recall: Precision and recall.
        few_pairs: Report P-IDS and U-IDS below ``MIN_PAIRS`` pairs too, as ``p_ids[n<2500]``.
        cache: Features of originals that earlier evaluations extracted.
        extra_scores: Per-image scores of one's own.

    Raises:
        InputError: See ``sdm_lightning.metrics.paired.refuse_unfit_scores``.
    """

    def __init__(
        self,
        features: FeatureExtractor | None = None,
        lpips: LPIPS | None = None,
        distance: FeatureDistance | None = None,
        *,
        ids: bool = True,
        kid: bool = False,
        precision_recall: bool = True,
        few_pairs: bool = False,
        cache: RealFeatureCache | None = None,
        extra_scores: Sequence[ImageScore] = (),
    ) -> None:
        refuse_unfit_scores(extra_scores)
        self.extra_scores = extra_scores
        self.features = features
        self.lpips = lpips
        self.distance = distance
        self.ids = ids
        self.kid = kid
        self.precision_recall = precision_recall
        self.few_pairs = few_pairs
        self.cache = cache
        extra = [score.name for score in extra_scores]
        names = (*PAIRED_NAMES, "lpips", "feature_distance", *extra, _NOT_FINITE, _LOWEST)
        self.scores = PerImageScores(names)
        self.fid = FrechetInceptionDistance(features.dim) if features is not None else None
        self.pairs = (
            PairedFeatures(features.dim)
            if features is not None and (ids or kid or precision_recall)
            else None
        )

    def to(self, device: torch.device | str) -> "Evaluator":
        """Move the networks; the sums stay on the CPU."""
        for network in (self.features, self.lpips, self.distance):
            if network is not None:
                network.to(device)
        return self

    def reset(self) -> None:
        """Forget all images (not the cache)."""
        for metric in (self.scores, self.fid, self.pairs):
            if metric is not None:
                metric.reset()

    @torch.no_grad()
    def update(
        self,
        completed: Tensor,
        image: Tensor,
        mask: Tensor | None,
        keys: Sequence[str],
        uncertainty: Tensor | None = None,
        mean: Tensor | None = None,
        *,
        allow_not_finite: bool = False,
    ) -> None:
        """Add a batch.

        Args:
            completed: ``(B, 3, H, W)`` results, float in [-1, 1] or uint8.
            image: ``(B, 3, H, W)`` originals, likewise.
            mask: ``(B, 1, H, W)``, 1 = known; None leaves out the hole-only scores.
            keys: ``B`` names, unique over the whole set.
            uncertainty: ``(B, 1, H, W)`` in [0, 1], with ``mean`` for its correlation to the error.
            mean: ``(B, 3, H, W)`` predicted mean in [-1, 1].
            allow_not_finite: Let NaN or infinity in a result make every score NaN instead of
                refusing it: a validation during training shows it and does not end the run.

        Raises:
            InputError: If result and original differ in size, are of another type or number of
                channels, a value is not finite, an original leaves [-1, 1] by far, or an extra
                score does not return one number per image.
        """
        if len(keys) == 0:
            return
        if completed.shape != image.shape:
            raise InputError(
                f"{keys[0]}: the result is {tuple(completed.shape)} and the original "
                f"{tuple(image.shape)}; they must have one size"
            )
        not_finite = _not_finite(completed, uncertainty, mean)
        if not allow_not_finite:
            _refuse(not_finite, keys, "the result holds a value that is not finite")
        _refuse(_not_finite(image), keys, "the original holds a value that is not finite")
        if image.is_floating_point():
            far = image.abs().flatten(1).amax(dim=1) > 2  # resampling may leave [-1, 1] a little
            _refuse(far, keys, "the original is not float in [-1, 1]; scale it, or give uint8")
        with torch.autocast(image.device.type, enabled=False):
            fake, real = to_uint8(completed), to_uint8(image)
            scores = paired_scores(fake, real, mask)
            scores[_NOT_FINITE] = not_finite
            if image.is_floating_point():
                scores[_LOWEST] = image.flatten(1).amin(dim=1)
            if uncertainty is not None and mean is not None and mask is not None:
                scores["uncertainty_error_correlation"] = uncertainty_error_correlation(
                    uncertainty, mean, real.float() / 127.5 - 1, mask
                )
            if self.lpips is not None:
                scores["lpips"] = self.lpips(fake, real)
            if self.distance is not None:
                scores["feature_distance"] = self.distance(fake, real)
            for score in self.extra_scores:
                scores[score.name] = values = score(fake, real, mask)
                require_one_per_image(values, len(keys), type(score).__name__)
        image_digests = pixel_hashes(real)
        mask_digests = (
            torch.zeros_like(image_digests)
            if mask is None
            else pixel_hashes((mask >= 0.5).to(torch.uint8))
        )
        digests = torch.stack([image_digests, mask_digests, pixel_hashes(fake)], dim=1)
        self.scores.update(keys, scores, digests)
        if self.features is not None:
            self._update_features(fake, real, keys, image_digests)

    def _update_features(
        self, fake: Tensor, real: Tensor, keys: Sequence[str], digests: Tensor
    ) -> None:
        assert self.features is not None
        assert self.fid is not None
        known = self.cache.lookup(digests) if self.cache is not None else None
        if known is None:
            both = self.features.extract(torch.cat([fake, real])).cpu()
            fake_rows, real_rows = both.split(len(fake))
            if self.cache is not None:
                self.cache.add(digests, real_rows)
        else:
            fake_rows, real_rows = self.features.extract(fake).cpu(), known
        self.fid.update(fake_rows, real=False)
        self.fid.update(real_rows, real=True)
        if self.pairs is not None:
            self.pairs.update(row_hashes(keys), real_rows, fake_rows)

    def compute(self) -> Evaluation:
        """Compute all metrics over all processes; every process must call it.

        Raises:
            InputError: If there is no image, one was seen twice, or the originals look as if they
                were in [0, 1].
        """
        with self.scores.sync_context():
            ids, values, digests = self.scores.table()
        if len(ids) == 0:
            raise InputError("nothing to evaluate: the data set is empty")
        lowest = values[:, self.scores.names.index(_LOWEST)]
        if lowest.isfinite().sum() >= _ENOUGH_FLOATS and not bool((lowest < 0).any()):
            raise InputError(
                "no float original has a value below 0: they look as if they were in [0, 1]; pass "
                "2 * x - 1, or uint8"
            )
        metrics: dict[str, float] = {}
        counts: dict[str, int] = {}
        refused: dict[str, str] = {}
        labels = {
            name: network.label
            for name, network in (("lpips", self.lpips), ("feature_distance", self.distance))
            if network is not None
        }
        for k, name in enumerate(self.scores.names):
            column = values[:, k]
            full = metric_name(name, labels.get(name, ""))
            if name in (_NOT_FINITE, _LOWEST) or bool(column.isnan().all()):
                if name == "ssim" or (name == "lpips" and self.lpips is not None):
                    refused[full] = f"images smaller than {_SMALLEST[name]} pixels"
                continue
            metrics[full] = finite_mean(column)
            counts[full] = int(column.isfinite().sum()) or int(column.isposinf().sum())
        if self.features is not None:
            found = self._feature_metrics(len(ids), refused)
            metrics.update(found)
            counts.update(dict.fromkeys(found, len(ids)))
        num_not_finite = int(values[:, self.scores.names.index(_NOT_FINITE)].sum())
        if num_not_finite:  # quantised, NaN is a black pixel like any other
            metrics = dict.fromkeys(metrics, math.nan)
        return Evaluation(
            metrics,
            counts,
            len(ids),
            refused,
            _digest(ids, digests[:, 0]),
            _digest(ids, digests[:, 1]) if bool(digests[:, 1].any()) else None,
            self._networks(),
            num_not_finite,
            {score.name: score.better for score in self.extra_scores},
            _digest(ids, digests[:, 2]),
        )

    def _feature_metrics(self, count: int, refused: dict[str, str]) -> dict[str, float]:
        assert self.features is not None
        assert self.fid is not None
        label = self.features.label
        found: dict[str, float] = {}
        heavy = not dist.is_initialized() or dist.get_rank() == 0
        with self.fid.sync_context():
            # One process computes, the others wait for its numbers.
            if heavy and count < 2:
                refused[metric_name("fid", label)] = "needs at least 2 images"
            elif heavy:
                found[metric_name("fid", label)] = self.fid.value()
        if self.pairs is not None:
            with self.pairs.sync_context():
                if heavy:
                    found.update(self._pair_metrics(count, refused))
        if dist.is_initialized():
            box: list[tuple[dict[str, float], dict[str, str]]] = [(found, refused)]
            dist.broadcast_object_list(box, src=0)
            found, reasons = box[0]
            refused.update(reasons)
        return found

    def _pair_metrics(self, count: int, refused: dict[str, str]) -> dict[str, float]:
        assert self.features is not None
        assert self.pairs is not None
        _, real, fake = self.pairs.table()
        label = self.features.label
        found: dict[str, float] = {}
        if self.ids:
            few = count < MIN_PAIRS
            small = f"n<{MIN_PAIRS}" if few else ""
            names = [metric_name(name, label, small) for name in ("p_ids", "u_ids")]
            if few and not self.few_pairs:
                reason = (
                    f"{count} pairs; below {MIN_PAIRS} it is near 0 for any images; few_pairs true "
                    "reports it as "
                )
                for score, shown in zip(("p_ids", "u_ids"), names, strict=True):
                    refused[metric_name(score, label)] = reason + shown
            else:
                scores = inception_discriminative_scores(real, fake, few_pairs=True)
                found.update(zip(names, scores, strict=True))
        if self.kid:
            names = [metric_name(name, label) for name in ("kid", "kid_deviation")]
            if count < MIN_IMAGES:
                refused.update(dict.fromkeys(names, f"needs at least {MIN_IMAGES} images"))
            else:
                found.update(zip(names, kernel_distance(real, fake), strict=True))
        if self.precision_recall:
            names = [metric_name(name, label) for name in ("precision", "recall")]
            if count <= NEIGHBOURS:
                refused.update(dict.fromkeys(names, f"needs more than {NEIGHBOURS} images"))
            else:
                found.update(zip(names, precision_recall(real, fake), strict=True))
        return found

    def _networks(self) -> dict[str, dict[str, str]]:
        networks: dict[str, dict[str, str]] = {}
        if self.features is not None:
            networks["features"] = {"name": self.features.name, "sha256": self.features.sha256}
        if self.lpips is not None:
            name = self.lpips.label or "alex"
            networks["lpips"] = {"name": name, "sha256": self.lpips.sha256}
        if self.distance is not None:
            distance = {"name": self.distance.label, "sha256": self.distance.sha256}
            networks["feature_distance"] = distance
        return networks


def _not_finite(*images: Tensor | None) -> Tensor:
    """Find the images of a batch with NaN or infinity in one of the tensors, bool ``(B,)``."""
    given = [~image.isfinite().flatten(1).all(dim=1) for image in images if image is not None]
    return torch.stack(given).any(dim=0)


def _refuse(bad: Tensor, keys: Sequence[str], reason: str) -> None:
    if bool(bad.any()):
        raise InputError(f"{keys[int(bad.nonzero()[0])]}: {reason}")


def _digest(ids: Tensor, digests: Tensor) -> str:
    rows = torch.stack([ids, digests], dim=1)
    return hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest()
