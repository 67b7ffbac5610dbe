"""The demo's report: one web page, built from the files of a demo run alone."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image

from sdm_lightning.demo.charts import bar_chart, line_chart, png
from sdm_lightning.demo.photos import DAMAGE, PHOTOS
from sdm_lightning.demo.report_data import DemoRun, read_run, verdict
from sdm_lightning.files import write_atomically

COLUMNS = {
    "kid[efficientnet-lite2]": ("KID × 1000 [efficientnet-lite2]", 1, min),
    "psnr_hole": ("PSNR in the hole, dB", 2, max),
    "l1_hole": ("L1 in the hole", 4, min),
    "psnr": ("PSNR, whole, dB", 2, max),
    "ssim": ("SSIM, whole", 4, max),
}
"""Score -> heading, digits, and which of two values is better."""

CURVES = {
    "val/psnr_hole": "Validation: PSNR in the hole, dB",
    "perceptual": "Perceptual loss",
    "likelihood": "Negative log-likelihood, nats per image",
    "adversarial": "Generator's adversarial loss",
    "discriminator": "Discriminator's loss",
}


def write_report(run: Path, output: Path) -> Path:
    """Write ``report.html`` into a folder.

    Args:
        run: Folder of one demo run, with ``demo.json``, ``metrics.csv``, ``results.jsonl`` and its
            pictures.
        output: Folder of the report.

    Raises:
        InputError: If the run is not complete.
    """
    page = output / "report.html"
    write_atomically(page, build_page(read_run(run)))
    return page


def build_page(run: DemoRun) -> str:
    """Fill the page's template with a run's files."""
    loader = PackageLoader("sdm_lightning.demo")
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    facts, scores = run.facts, run.scores
    errors = facts["comparison"]["error_by_uncertainty"]
    tested = {name.split("/")[0]: float(value) for name, value in run.record["metrics"].items()}
    iterations = run.record.get("num_iterations")
    here = scores.get(f"SDM, {iterations} iteration{'' if iterations == 1 else 's'}")
    models = [row["psnr_hole"] for name, row in scores.items() if name.startswith("SDM")]
    return pages.get_template("report.html").render(
        facts=facts,
        comparison=facts["comparison"],
        errors=errors,
        record=run.record,
        scores=scores,
        folder=run.folder,
        images_seen=run.images_seen,
        verdict=verdict(scores, run.best_model),
        tiles=_tiles(run),
        examples=_examples(run),
        inpainted=sorted((run.folder / "inpainted").glob("*.png")),
        photos=PHOTOS,
        damage=DAMAGE,
        columns=[
            {"score": score, "heading": heading, "digits": digits,
             "best": best(row[score] for row in scores.values())}
            for score, (heading, digits, best) in COLUMNS.items()
            if all(score in row for row in scores.values())
        ],
        fewer_is_better=models[0] > models[-1],
        tested=(tested["psnr_hole"], here["psnr_hole"]) if here and "psnr_hole" in tested else None,
        rank_correlation=tested.get("uncertainty_error_correlation"),
        curves=[
            (title, name, png(line_chart(*curve)))
            for start, title in CURVES.items()
            for name, curve in run.curves.items()
            if (name == start or name.startswith(f"{start}[")) and len(curve[0]) > 1
        ],
        error_chart=png(bar_chart(errors, "surest tenth", "least sure")),
        data_url=data_url,
    )  # fmt: skip


def _tiles(run: DemoRun) -> list[tuple[str, str]]:
    ours = run.scores[run.best_model]["psnr_hole"]
    tiles = [(f"{ours:.1f} dB", "PSNR in the hole, SDM")]
    for method in ("mean-colour fill", "OpenCV Telea"):
        gain = ours - run.scores[method]["psnr_hole"]
        tiles.append((f"{gain:+.1f} dB", f"against {method}"))
    return [*tiles, (f"{run.images_seen:,}", "training images seen")]


def _examples(run: DemoRun) -> list[dict[str, Any]]:
    """List the windows whose pictures were kept: folder, name, steps, and frames of the filling."""
    keys = run.facts["comparison"].get("keys", [])
    folders = sorted(path for path in (run.folder / "pictures").iterdir() if path.is_dir())
    examples = []
    for index, folder in enumerate(folders):
        count = len(list(folder.glob("step*.png")))
        states = [folder / f"state{number}.png" for number in range(1, count)]
        examples.append({
            "folder": folder,
            "name": keys[index] if index < len(keys) else folder.name,
            "steps": range(1, count + 1),
            "frames": [folder / "input.png", *states, folder / f"step{count}.png"],
        })  # fmt: skip
    return examples


def data_url(path: Path | BytesIO, lossy: bool = False) -> str:
    """Return a ``data:`` address that holds the picture; JPEG, if lossy, is a tenth of the size."""
    kind = "jpeg" if lossy else "png"
    buffer = BytesIO()
    with Image.open(path) as image:
        if lossy:
            image.convert("RGB").save(buffer, "JPEG", quality=88)
        else:
            image.save(buffer, "PNG", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
