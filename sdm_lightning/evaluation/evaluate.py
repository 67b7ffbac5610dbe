"""``sdm evaluate``: score a folder of results, of any method, against a folder of originals."""

import sys
import time
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from sdm_lightning.data.masks.convention import MaskConvention
from sdm_lightning.devices import choose_device
from sdm_lightning.errors import InputError
from sdm_lightning.evaluation.cache import RealFeatureCache
from sdm_lightning.evaluation.convention_guard import ENOUGH_IMAGES, ConventionGuard
from sdm_lightning.evaluation.evaluator import Evaluator
from sdm_lightning.evaluation.mask_sets import verified_mask_set
from sdm_lightning.evaluation.pairs import MAX_PADDING, BadPair, PairedFolders, collate_pairs
from sdm_lightning.evaluation.printing import remarks, table_lines
from sdm_lightning.evaluation.record import append_record, make_record
from sdm_lightning.features.extractors import build_features
from sdm_lightning.files import check_writable
from sdm_lightning.metrics.feature_distance import FeatureDistance
from sdm_lightning.metrics.lpips import LPIPS
from sdm_lightning.metrics.paired import ImageScore
from sdm_lightning.workers import default_workers


def evaluate_folders(
    real: str,
    fake: str,
    *,
    masks: str | None = None,
    mask_convention: MaskConvention | None = None,
    crop: int | None = None,
    composite: bool = False,
    fake_suffix: str = "",
    only_common: bool = False,
    skip_bad: bool = False,
    features: str | None = "inception-v3-compat",
    features_weights: str | None = None,
    features_weights_sha256: str | None = None,
    lpips: Literal["alex"] | None = "alex",
    lpips_weights: str | None = None,
    lpips_weights_sha256: str | None = None,
    distance: str | None = None,
    kid: bool = False,
    ids: bool = True,
    precision_recall: bool = True,
    few_pairs: bool = False,
    extra_scores: list[ImageScore] | None = None,
    download: bool = False,
    protocol: str = "custom",
    method: str | None = None,
    seed: int | None = None,
    record: str | None = "results.jsonl",
    cache: str | None = "~/.cache/sdm_lightning/features",
    batch_size: int = 32,
    num_workers: int | None = None,
    device: str = "auto",
) -> None:
    """Score a folder of results, of any method, against the originals.

    Files are paired by name without extension. Prints a table and appends one line to the record.

    Args:
        real: Originals: a folder, zip or tar of images.
        fake: Results with the same file names, preferably PNG, which keeps pixels exactly.
        masks: Masks with the same file names, for the scores over the hole only.
        mask_convention: What white means in them: known-white or hole-white. Default:
            known-white, and masks are refused that look inverted, or that the method took for
            inverted.
        crop: Side of the central square that originals are cut to, as in the published protocol;
            refused where more than a quarter of the squares is mirrored padding.
        composite: Paste the known pixels of the originals into the results first.
        fake_suffix: Ending of the results' names that the originals' lack, such as _mask000.
        only_common: Score the names that both have; otherwise, a missing file is an error.
        skip_bad: Leave out pairs that cannot be read or differ in size, instead of stopping.
        features: Network for FID, KID, P-IDS, U-IDS, precision and recall; null leaves these out.
            Any other than inception-v3-compat (efficientnet-lite0, -lite2, an architecture of timm,
            random-conv) is named in every score.
        features_weights: Local path of its weights; default: torch hub's cache.
        features_weights_sha256: First digits of another weights file's hash, to allow it.
        lpips: Network for LPIPS; null leaves it out.
        lpips_weights: Local path of AlexNet's weights; default: torch hub's cache.
        lpips_weights_sha256: First digits of another weights file's hash, to allow it.
        distance: Network for the uncalibrated feature distance, such as efficientnet-lite2.
        kid: KID (times 1000) and its deviation over subsets, for sets of few images.
        ids: P-IDS and U-IDS; with fewer than 2,500 pairs they are left out with the reason.
        precision_recall: Precision and recall.
        few_pairs: Report P-IDS and U-IDS of fewer pairs, as p_ids[n<2500].
        extra_scores: Class paths of per-image scores of your own, such as my_scores.HoleColour.
        download: Fetch missing weights into torch hub's cache.
        protocol: Data, number and masks, such as places36500-512-large; part of each recorded name.
        method: Name of the method, for tables; one that the paper lacks gets a row of its own.
        seed: Training seed of the method; tables average over seeds.
        record: File to append the record to; null writes none.
        cache: Folder for the originals' features; null keeps none.
        batch_size: Images per forward pass of the networks.
        num_workers: Decoding processes; default: one per core, up to 8.
        device: Where the networks run: cpu, cuda, cuda:1, or auto.

    Raises:
        InputError: If files cannot be scored, or scores would be meaningless.
    """
    started = time.monotonic()
    if composite and masks is None:
        raise InputError("--composite true pastes known pixels: give masks, or leave it out")
    for key, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
        if value is not None and value < least:
            raise InputError(f"--{key} must be at least {least}, got {value}")
    if record is not None:
        check_writable(record)
    target = choose_device(device)
    pairs = PairedFolders(real, fake, masks, mask_convention, crop, fake_suffix, only_common)
    mask_set = None if masks is None else verified_mask_set(masks, mask_convention)
    extractor = build_features(features, features_weights, features_weights_sha256, download)
    calibrated = None
    if lpips is not None:
        calibrated = LPIPS(lpips_weights, lpips_weights_sha256, download)
    store = None
    if extractor is not None and cache is not None:
        identity = {
            "path": str(Path(real).resolve()),
            "crop": crop,
            "extractor": extractor.name,
            "weights": extractor.sha256,
        }
        store = RealFeatureCache(Path(cache).expanduser(), identity, extractor.dim)
    evaluator = Evaluator(
        extractor,
        calibrated,
        FeatureDistance(distance) if distance is not None else None,
        ids=ids,
        kid=kid,
        precision_recall=precision_recall,
        few_pairs=few_pairs,
        cache=store,
        extra_scores=extra_scores or (),
    )
    guard = None if masks is None else ConventionGuard(masks, proven=mask_set is not None)
    skipped = run_pairs(
        pairs,
        evaluator,
        guard=guard,
        check_convention=mask_convention is None,
        composite=composite,
        skip_bad=skip_bad,
        batch_size=batch_size,
        num_workers=num_workers,
        device=target,
    )
    evaluation = evaluator.compute()
    if store is not None:
        store.save()
    seconds = time.monotonic() - started
    notes = remarks(pairs, evaluator, evaluation, guard, skipped, composite)
    print("\n".join([*table_lines(evaluation, protocol), *notes, f"{seconds:.1f} s"]))
    if record is not None:
        facts = {
            "command": "evaluate",
            "method": method,
            "seed": seed,
            "device": str(target),
            "real": {"path": real, "crop": crop},
            "fake": {"path": fake},
            "masks": None
            if masks is None
            else {
                "path": masks,
                "convention": mask_convention or "known-white",
                "set": mask_set,
            },
            "composite": composite,
            "known_error": None if guard is None else guard.known_error,
            "skipped": {pair.key: pair.reason for pair in skipped},
            "unpaired": pairs.dropped,
        }
        append_record(record, make_record(evaluation, protocol, seconds, **facts))
        print(f"recorded in {record}")


def run_pairs(
    pairs: PairedFolders,
    evaluator: Evaluator,
    *,
    guard: ConventionGuard | None = None,
    check_convention: bool = True,
    composite: bool = False,
    skip_bad: bool = False,
    batch_size: int = 32,
    num_workers: int | None = None,
    device: str | torch.device = "auto",
) -> list[BadPair]:
    """Score all pairs; worker processes decode the next ones meanwhile.

    Args:
        pairs: What to score.
        evaluator: Where scores collect.
        guard: Measures the errors at known and hole pixels; None without masks.
        check_convention: Refuse masks that look inverted, or that the method took for inverted.
        composite: Paste the known pixels of the originals into the results first.
        skip_bad: Leave out pairs that cannot be read.
        batch_size: Images at once.
        num_workers: Decoding processes; None takes one per core up to 8.
        device: Where the networks run.

    Returns:
        The pairs left out.

    Raises:
        InputError: If a pair cannot be read and ``skip_bad`` is off, masks look inverted, or more
            than ``MAX_PADDING`` of the crops is mirrored padding.
    """
    target = choose_device(device)
    evaluator.to(target)
    workers = default_workers() if num_workers is None else num_workers
    loader = DataLoader(
        pairs,
        batch_size,
        num_workers=workers,
        collate_fn=collate_pairs,
        pin_memory=target.type == "cuda",
        prefetch_factor=2 if workers else None,
    )
    skipped: list[BadPair] = []
    padding, scored = 0.0, 0
    with tqdm(total=len(pairs), unit="img", desc="evaluate", file=sys.stderr) as progress:
        for batches, bad in loader:
            if bad and not skip_bad:
                raise InputError(f"{bad[0].reason}; --skip_bad true leaves such pairs out")
            skipped += bad
            for batch in batches:
                real = batch.real.to(target, non_blocking=True)
                fake = batch.fake.to(target, non_blocking=True)
                mask = None if batch.mask is None else batch.mask.to(target, non_blocking=True)
                if mask is not None and guard is not None:
                    guard.update(real, fake, mask)
                    if check_convention and guard.num_images >= ENOUGH_IMAGES:
                        guard.check()
                    if composite:
                        fake = torch.where(mask >= 0.5, real, fake)
                padding, scored = padding + batch.padding, scored + len(batch.keys)
                _refuse_padding(pairs, padding / len(pairs))  # the rest can only add to it
                evaluator.update(fake, real, mask, batch.keys)
                progress.update(len(batch.keys))
            progress.update(len(bad))
    if guard is not None and check_convention and guard.num_images:
        guard.check()
    _refuse_padding(pairs, padding / max(scored, 1))
    return skipped


def _refuse_padding(pairs: PairedFolders, share: float) -> None:
    if share > MAX_PADDING:
        raise InputError(
            f"{pairs.real.source.path}: {share:.0%} of the crops of {pairs.crop}x{pairs.crop} is "
            f"mirrored padding, more than {MAX_PADDING:.0%}: give originals whose shorter side has "
            f"{pairs.crop} pixels, or a smaller --crop"
        )
