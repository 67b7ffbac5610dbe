"""The demo's report: one web page and one picture, built from the files of a demo run alone."""

import html
from pathlib import Path

from sdm_lightning.demo.charts import bar_chart, line_chart
from sdm_lightning.demo.page import figure, filling, image_tag, page, wipe
from sdm_lightning.demo.panels import write_sheet
from sdm_lightning.demo.report_data import DemoRun, read_run, stand_ins, verdict

COLUMNS = {
    "kid[efficientnet-lite2]": ("KID &times; 1000 [efficientnet-lite2]", 1, False),
    "psnr_hole": ("PSNR in the hole, dB", 2, True),
    "l1_hole": ("L1 in the hole", 4, False),
    "psnr": ("PSNR, whole, dB", 2, True),
    "ssim": ("SSIM, whole", 4, True),
}
"""Score -> heading, digits, whether more is better."""

CURVES = {
    "val/psnr_hole": "Validation: PSNR in the hole, dB",
    "perceptual": "Perceptual loss",
    "likelihood": "Negative log-likelihood, nats per image",
    "adversarial": "Generator's adversarial loss",
    "discriminator": "Discriminator's loss",
}


def write_report(run: Path, output: Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.png`` into a folder.

    Args:
        run: Folder of one demo run, with ``demo.json``, ``metrics.csv``, ``results.jsonl`` and its
            pictures.
        output: Where the report goes.

    Raises:
        InputError: If the run is not complete.
    """
    found = read_run(run)
    path = output / "report.html"
    path.write_text(build_page(found), encoding="utf-8")
    return path, write_sheet(found, output / "report.png")


def build_page(run: DemoRun) -> str:
    """The report as one HTML document."""
    facts = run.facts
    comparison = facts["comparison"]
    hole = comparison["hole_ratio"]
    parts = [
        f'<p class="over">sdm-lightning demo · {html.escape(facts["time"])}</p>',
        "<h1>Filling holes, the surest pixels first</h1>",
        '<p class="lead">SDM predicts every missing pixel and how sure it is, keeps the surest '
        "ones, and looks again. Here it ran from shards to this page on photos that came with the "
        f"installation. On {comparison['num_images']} windows of four photos that it never saw, "
        f"with {hole:.0%} of each missing, it reaches "
        f"{html.escape(verdict(run.scores, run.best_model))}</p>",
        _tiles(run),
        _hero(run),
        f'<div class="warn"><b>Read this before the numbers</b><ul>'
        f"{''.join(f'<li>{text}</li>' for text in stand_ins(run))}</ul></div>",
        *_first_hole(run),
        *_gallery(run),
        *_photos(run),
        *_numbers(run),
        *_uncertainty(run),
        *_training(run),
        *_what_was_run(run),
        "<footer>sdm-lightning is an independent implementation of SDM, the spatial diffusion "
        "model for large-hole inpainting. This page was built from "
        f"<code>{html.escape(str(run.folder))}</code> alone and needs no network.</footer>",
    ]
    return page("sdm-lightning demo", "\n".join(parts))


def _tiles(run: DemoRun) -> str:
    scores = run.scores
    ours = scores[run.best_model]["psnr_hole"]
    tiles = [(f"{ours:.1f} dB", "PSNR in the hole, SDM")]
    for method, label in (
        ("mean-colour fill", "mean-colour fill"),
        ("OpenCV Telea", "OpenCV Telea"),
    ):
        if method in scores:
            tiles.append((f"{ours - scores[method]['psnr_hole']:+.1f} dB", f"against {label}"))
    tiles.append((f"{run.images_seen:,}", "training images seen"))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in tiles
    ) + "</div>"  # fmt: skip


def _hero(run: DemoRun) -> str:
    """The first windows, their holes filling up over and over."""
    shown = []
    for folder in _example_folders(run)[:4]:
        steps = [folder / f"step{number}.png" for number in range(1, _num_steps(folder) + 1)]
        states = [folder / f"state{number}.png" for number in range(1, len(steps))]
        frames = [folder / "input.png", *states, *steps[-1:]]
        shown.append(filling(frames, "a hole filling up, iteration by iteration"))
    return f'<div class="strip" style="--n:{len(shown)}">{"".join(shown)}</div>' if shown else ""


def _example_folders(run: DemoRun) -> list[Path]:
    return sorted(path for path in (run.folder / "pictures").iterdir() if path.is_dir())


def _num_steps(folder: Path) -> int:
    return len(list(folder.glob("step*.png")))


def _first_hole(run: DemoRun) -> list[str]:
    folders = _example_folders(run)
    if not folders:
        return []
    folder = folders[0]
    count = _num_steps(folder)
    rows = [
        ("step", "what it predicts"),
        ("uncertainty", "how unsure it is"),
        ("state", "what it keeps"),
    ]
    cells = ["<span></span>"]
    cells += [f'<span class="head">iteration {number}</span>' for number in range(1, count + 1)]
    for name, label in rows:
        cells.append(f'<span class="side">{label}</span>')
        for number in range(1, count + 1):
            cells.append(image_tag(folder / f"{name}{number}.png", f"iteration {number}: {label}"))
    return [
        "<h2>One hole, step by step</h2>",
        "<p>Bright means unsure. In each iteration the least unsure pixels join the known ones; "
        "grey is still missing. Input and truth stand below.</p>",
        f'<div class="stages" style="--n:{count}">{"".join(cells)}</div>',
        f'<div class="ends">{figure(folder / "input.png", "input")}'
        f"{figure(folder / 'target.png', 'truth')}</div>",
    ]


def _gallery(run: DemoRun) -> list[str]:
    parts = [
        "<h2>Photos it has never seen</h2>",
        "<p>The first windows of the test set, in order, not chosen. Held-out photos were never "
        "trained on, not even as a texture.</p>",
    ]
    names = run.facts["comparison"].get("keys", [])
    for index, folder in enumerate(_example_folders(run)):
        count = _num_steps(folder)
        tiles = [figure(folder / "input.png", "input")]
        tiles += [
            figure(folder / f"step{number}.png", f"iteration {number}")
            for number in range(1, count + 1)
        ]
        tiles.append(figure(folder / "uncertainty1.png", "uncertainty"))
        tiles.append(figure(folder / "telea.png", "Telea"))
        tiles.append(figure(folder / "target.png", "truth"))
        label = html.escape(names[index]) if index < len(names) else folder.name
        parts.append(
            f'<div class="strip wrap" style="--n:{len(tiles)}" aria-label="{label}">'
            f"{''.join(tiles)}</div>"
        )
    return parts


def _photos(run: DemoRun) -> list[str]:
    filled = sorted((run.folder / "inpainted").glob("*.png"))
    if not filled:
        return []
    cards = []
    damage: dict[str, str] = run.facts.get("damage", {})
    for path in filled:
        before = run.folder / "photo-inputs" / path.name
        what = damage.get(path.stem, "holes")
        cards.append(
            f"<figure>{wipe(before, path, path.stem)}"
            f"<figcaption>{html.escape(path.stem)}: {html.escape(what)}</figcaption></figure>"
        )
    return [
        "<h2>Whole photos, at their own size</h2>",
        "<p>Drag across. <code>sdm inpaint</code> cuts out each hole with its surroundings, works "
        "at the size that the model knows, and touches nothing outside the hole.</p>",
        f'<div class="cards">{"".join(cards)}</div>',
    ]


def _numbers(run: DemoRun) -> list[str]:
    scores = run.scores
    columns = {
        score: column
        for score, column in COLUMNS.items()
        if all(score in row for row in scores.values())
    }
    best = {
        score: (max if more else min)(row[score] for row in scores.values())
        for score, (_, _, more) in columns.items()
    }
    top = max(row["psnr_hole"] for row in scores.values())
    rows = []
    for method, row in scores.items():
        cells = [f"<td>{html.escape(method)}</td>"]
        for score, (_, digits, _) in columns.items():
            value = row[score]
            bar = ""
            if score == "psnr_hole":
                bar = f'<span class="bar" style="width:{5 * value / top:.2f}em"></span>'
            css = ' class="best"' if value == best[score] else ""
            cells.append(f"<td{css}>{bar}{value:.{digits}f}</td>")
        css = ' class="ours"' if method.startswith("SDM") else ""
        rows.append(f"<tr{css}>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{title}</th>" for title, _, _ in columns.values())
    number = run.facts["comparison"]["num_images"]
    masks = html.escape(run.facts["comparison"]["masks"])
    return [
        "<h2>Beside the classical methods</h2>",
        f"<p>Mean over {number} held-out windows, the same images and masks for every row "
        f"({masks}). Higher is better, except for KID and L1; the best of each column is bold.</p>",
        f'<div class="scroll"><table><thead><tr><th>method</th>{heads}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>",
        f'<p class="note">{_why_fewer(run)} {_same_number(run)}</p>',
    ]


def _why_fewer(run: DemoRun) -> str:
    models = [row["psnr_hole"] for name, row in run.scores.items() if name.startswith("SDM")]
    if models[0] <= models[-1]:
        return ""
    return (
        "PSNR favours the average of all possible fillings, so that one iteration scores highest "
        "here; realism, which KID measures, is another question."
    )


def _same_number(run: DemoRun) -> str:
    found = {name.split("/")[0]: value for name, value in run.record["metrics"].items()}
    count = run.record.get("num_iterations")
    name = f"SDM, {count} iteration{'s' if count != 1 else ''}"
    if "psnr_hole" not in found or name not in run.scores:
        return ""
    here = run.scores[name]["psnr_hole"]
    return (
        f"<code>sdm test</code> measured the checkpoint by itself, at {count} iterations: "
        f"{float(found['psnr_hole']):.2f} dB in the hole, against {here:.2f} here through the "
        "inference interface."
    )


def _uncertainty(run: DemoRun) -> list[str]:
    values = run.facts["comparison"]["error_by_uncertainty"]
    if not any(values):
        return []
    ratio = values[-1] / values[0] if values[0] else 0.0
    metrics = {name.split("/")[0]: value for name, value in run.record["metrics"].items()}
    rank = metrics.get("uncertainty_error_correlation")
    rank_text = f" Rank correlation of the two, image by image: {float(rank):.2f}." if rank else ""
    chart = bar_chart("Mean error by tenth of uncertainty", values, "surest tenth", "least sure")
    return [
        "<h2>Does it know where it is wrong?</h2>",
        "<p>Hole pixels sorted by the uncertainty of the first iteration, in tenths, and the error "
        f"that each tenth turned out to have: {ratio:.1f} times as large in the least sure as in "
        f"the surest.{rank_text}</p>",
        '<div class="charts one"><div class="panel"><h3>Mean absolute error, of 1</h3>'
        f"{chart}</div></div>",
    ]


def _training(run: DemoRun) -> list[str]:
    panels = []
    for start, title in CURVES.items():
        for name, lines in run.curves.items():
            if name == start or name.startswith(f"{start}["):
                label = f"{title} <code>{html.escape(name)}</code>" if "[" in name else title
                panels.append(
                    f'<div class="panel"><h3>{label}</h3>{line_chart(title, lines)}</div>'
                )
    if not panels:
        return []
    shipped = any(line.css == "before" for lines in run.curves.values() for line in lines)
    key = '<span class="key"></span>this demo'
    if shipped:
        key = '<span class="key before"></span>training of the weights in the package &nbsp; ' + key
    return [
        "<h2>Training</h2>",
        f'<p class="note">{key}. Faint: as logged; bold: smoothed.</p>',
        f'<div class="charts">{"".join(panels)}</div>',
    ]


def _folded(command: str) -> str:
    """A long command over several lines, as a shell would take it."""
    return command if len(command) < 90 else command.replace(" --", " \\\n    --")


def _minutes(minutes: float) -> str:
    return f"{minutes:g} minute" + ("" if minutes == 1 else "s")


def _what_was_run(run: DemoRun) -> list[str]:
    facts, record = run.facts, run.record
    lines = [
        f"$ {html.escape(_folded(entry['command']))}\n"
        f'<span class="soft"># {entry["seconds"]:.0f} s</span>'
        for entry in facts["commands"]
    ]
    checkpoint = (record.get("checkpoint") or {}).get("sha256") or ""
    hardware = facts["hardware"]
    machine = f"{hardware['cpu']}, {hardware['cores']} cores"
    if hardware.get("gpus"):
        machine += ", " + ", ".join(hardware["gpus"])
    weights = facts.get("weights")
    begin = "random weights"
    if weights:
        begin = (
            f"the package's weights, {weights['images_seen'] or 0:,} images seen, SHA-256 "
            f"<code>{weights['sha256'][:16]}…</code>, licence: {html.escape(weights['licence'])}"
        )
    minutes, seconds = divmod(int(facts["seconds"]), 60)
    rows: list[tuple[str, str]] = [
        ("started from", begin),
        ("trained for", f"{_minutes(facts['minutes'])}, to {run.images_seen:,} images seen"),
        ("whole demo", f"{minutes} min {seconds} s"),
        ("iterations", f"{record.get('train_iterations')} in training, "
         f"{record.get('num_iterations')} in the test"),
        ("masks", f"{facts['comparison']['masks']}, fixed for the test; SHA-256 "
         f"<code>{str(record.get('masks_digest'))[:16]}…</code>"),
        ("test images", f"{record.get('num_images')}; SHA-256 "
         f"<code>{str(record.get('images_digest'))[:16]}…</code>"),
        ("checkpoint", f"SHA-256 <code>{checkpoint[:16]}…</code>, moving average"),
        ("machine", html.escape(machine)),
        ("versions", html.escape(", ".join(f"{k} {v}" for k, v in facts["versions"].items()))),
        ("commit", html.escape(str(facts.get("git_commit") or "not in a checkout"))),
        ("seed", str(facts["seed"])),
    ]  # fmt: skip
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    photos = "".join(
        f"<dt>{html.escape(photo['name'])}</dt><dd>{photo['split']}; "
        f"{html.escape(photo['source'])}; {html.escape(photo['licence'])}</dd>"
        for photo in facts["photos"]
    )
    return [
        "<h2>What was run</h2>",
        f"<pre><code>{chr(10).join(lines)}</code></pre>",
        f"<dl>{listed}</dl>",
        f"<details><summary>Photos, and whose they are</summary><dl>{photos}</dl></details>",
    ]
