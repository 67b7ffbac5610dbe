"""What ``sdm evaluate`` prints: a table and notes for its reader."""

from collections.abc import Sequence

from sdm_lightning.data.decode import JPEG_EXTENSIONS
from sdm_lightning.evaluation.convention_guard import ConventionGuard
from sdm_lightning.evaluation.evaluator import Evaluation, Evaluator
from sdm_lightning.evaluation.pairs import BadPair, PairedFolders
from sdm_lightning.metrics.ids import MIN_PAIRS
from sdm_lightning.metrics.kid import SUBSET_SIZE
from sdm_lightning.scores import Score, digits_of, find_score, protocol_name


def table_lines(evaluation: Evaluation, protocol: str) -> list[str]:
    """Format the metrics as aligned lines, then those that were refused."""
    rows = [("metric", "value", "images", "")]
    for name, value in evaluation.metrics.items():
        score = find_score(name)
        if name in evaluation.better:
            score = Score(evaluation.better[name])
        meaning = "" if score is None else f"{score.unit}, {score.better} is better".lstrip(", ")
        count, shown = str(evaluation.counts[name]), f"{value:.{digits_of(name)}f}"
        rows.append((protocol_name(name, protocol), shown, count, meaning))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = [
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows
    ]
    lines += [f"not reported: {name}: {why}" for name, why in evaluation.refused.items()]
    return lines


def remarks(
    pairs: PairedFolders,
    evaluator: Evaluator,
    evaluation: Evaluation,
    guard: ConventionGuard | None,
    skipped: Sequence[BadPair],
    composite: bool,
) -> list[str]:
    """List what a reader of the table should know about its files."""
    notes = []
    store = evaluator.cache
    if pairs.dropped:
        notes.append(f"note: {pairs.dropped} files without a counterpart were left out")
    for pair in skipped[:10]:
        notes.append(f"left out: {pair.reason}")
    if len(skipped) > 10:
        notes.append(f"left out: {len(skipped) - 10} more pairs")
    names = (entry.name.lower() for entry in pairs.fake.entries.values())
    lossy = sum(name.rpartition(".")[2] in JPEG_EXTENSIONS for name in names)
    if lossy and not composite:
        notes.append(
            f"note: {lossy} results are JPEG files: their known pixels differ from the originals' "
            "by the codec, which FID and the IDS scores see; published numbers are of PNG files"
        )
    if guard is not None and guard.known_error > 0 and not composite:
        notes.append(
            f"note: known pixels differ from the originals by {guard.known_error:.2f} levels on "
            "average; published numbers are of results with the known pixels pasted back "
            "(--composite true does that)"
        )
    has_fid = any(name.startswith("fid") for name in evaluation.metrics)
    if has_fid and evaluation.num_images < MIN_PAIRS:
        notes.append(
            f"note: FID of {evaluation.num_images} images is unreliable; it falls as their number "
            "grows, so compare it at equal numbers only"
        )
    has_kid = any(name.startswith("kid") for name in evaluation.metrics)
    if has_kid and (size := evaluation.num_images // 2) < SUBSET_SIZE:
        notes.append(
            f"note: KID of {evaluation.num_images} images is a mean over random subsets of {size}; "
            "it moves with their number, so compare it at equal numbers only"
        )
    if store is not None and store.hits:
        notes.append(f"note: features of {store.hits} originals came from the cache")
    return notes
