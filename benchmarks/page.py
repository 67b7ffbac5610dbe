"""docs/benchmarks.md, made from the committed JSON lines."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from benchmarks import gpu
from benchmarks.common import Line, read_lines

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"

# Of engines and chance, docs/deploy.md and docs/evaluation.md have the figures.
TITLES = {
    "start-up": "Start-up",
    "generator": "Generator",
    "memory": "Memory",
    "precision": "bfloat16",
    "training": "Training step",
    "compile": "Compilation",
    "data": "Data",
    "masks": "Masks",
    "evaluation": "Evaluation",
    "scores": "Scores of a whole test set",
    "checkpoint": "Checkpoints",
    "photo": "A photo at full size",
    "scale": "Exchange between processes",
}

INTRODUCTION = """\
# Benchmarks

Speed and memory, each figure beside its limit. `make bench` measures most of this page;
*Compilation*, [engines](deploy.md#speed-and-difference), *Scores of a whole test set* and
[scores of perfect results](evaluation.md#measured) take minutes or need more packages:
`python -m benchmarks compile engines scores chance`. The last section is computed.
`python -m benchmarks SECTION ...` measures a part, `--output FILE` keeps the JSON lines, and
`python -m benchmarks page` writes this page from those in `benchmarks/results/`. No GPU was at
hand; `make gpu` measures on one ([below](#on-a-gpu)).

Figure and limit are measured in the same process in interleaved pairs: *ratio* is the median of the
pairs' ratios, and 1 means that nothing is lost. The limit of a network is the
list of its own convolutions, matrix products and attention, recorded with their shapes and run
again with nothing between them. On a CPU, times are processor seconds of one thread unless they
say wall clock. *Before* is the same command with the code as it was before an improvement, on the
same machine. All machines did other work meanwhile, the one with AVX2 much of it: ratios hold, its
times are long. What was not run is absent.
"""

MEMORY = """\
glibc returns every freed block above 32 MiB to the kernel, which clears its pages when the next
tensor is written; that takes longer than the arithmetic of an activation. `sdm` commands therefore
let freed memory stay with the process. From Python:

```python
from sdm_lightning.memory import reuse_freed_memory

reuse_freed_memory()  # before the first tensor
```

It leaves processes alone that have chosen an allocator by `LD_PRELOAD` or `MALLOC_...`.
"""

PRECISION = """\
`sdm inpaint --precision auto` runs convolutions in bfloat16 where the processor computes in it
(AVX512-BF16, AMX, GPUs since 2020). The time of the paper's network is in the table of the
generator.
"""

TRAINING = """\
Peak memory is that of a small network (8 to 32 channels, batch 2): what a fit adds to its process.
With gradients stopped between iterations, the default ([paper notes](paper-notes.md#the-loop)), it
hardly grows with T. On the Xeon the products are faster, so that what remains weighs more; the step
takes as long as on the EPYC with AVX512, whose lines for 32x32 and 64x64 were measured with an
earlier likelihood.
"""

COMPILATION = """\
`model.compile_generator true` compiles the generator. On this processor it pays for the smallest
model only, whose time is mostly that of calling operators; the frozen network's convolutions by
channel are slower compiled, so no option compiles it. On a GPU it has not been measured.
"""

DECODING = """\
OpenCV gives the same pixels as Pillow in less time, but completes damaged JPEGs silently.
Where `simplejpeg` is installed (extra `fast`), the stream decodes with it in strict mode, in which
every warning of libjpeg is an error, and leaves what it refuses to Pillow: the same pixels and the
same refusals (`tests/data/test_decode.py`).
"""

EXCHANGE = """\
Only buckets of the network that a phase trains are reduced, where DDP itself would reduce both
networks' in every phase: twice the gradients' bytes in a step, three times with R1. What is left
above 1 are buckets with parameters of both, and in a step with R1 the discriminator's a second
time.
"""

ON_A_GPU = """\
## On a GPU

`make gpu` (on a machine without network `python3 -m benchmarks.gpu`) runs the tests that need a
GPU, the sections *Training step*, *Generator*, *Memory* and *Checkpoints*, and `sdm fit` on the
demo's photos, in eight minutes together (`--minutes`), start-up included. It installs and downloads
nothing; it takes the Python of `.venv` if there is one, else `python3`, and names missing packages
{needed}

The folder `runs/gpu` (`--output`) then holds eight files, of 6 MB together for the demo's model:

- `summary.json`: tests passed, failed and not reached, figures of each section, images trained on,
  images per second with and without start-up, what failed, and which parts were cut; it is written
  after each part;
- `tests.txt`, `bench.txt`, `fit.txt`: what the parts print, a test's failure at once;
- `bench.jsonl`: the figures, for `benchmarks/results/`;
- `metrics.csv`: of the training, with `train/images_per_second`;
- `weights.safetensors`, `weights.discriminator.safetensors`: the averaged generator in half
  precision, and its discriminator.

Shards and checkpoints are in a temporary folder, or in `--work`. The next call goes on from the
weights, or, with the optimizers' state, from `--work` or from a checkpoint:

```bash
python3 -m benchmarks.gpu --output runs/gpu2 -- --start_from runs/gpu/weights.safetensors
python3 -m benchmarks.gpu --work runs/gpu-work                 # and the same again
python3 -m benchmarks.gpu --checkpoint runs/mine/checkpoints/last.ckpt --shards shards/mine
```

What follows `--` are options of `sdm fit`, with paths from the repository's root; with a `--config`
among them they replace the demo's. The exit status is 1 if a part failed or nothing was trained.
"""

NOTES = {
    "memory": MEMORY,
    "precision": PRECISION,
    "training": TRAINING,
    "compile": COMPILATION,
    "data": DECODING,
    "scale": EXCHANGE,
}
"""What is said below a section's table."""


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page's text."""
    before = newest(RESULTS.glob("*_before.jsonl"))
    lines = newest(path for path in RESULTS.glob("*.jsonl") if "_before" not in path.name)
    parts = [INTRODUCTION]
    for section, title in TITLES.items():
        found = [line for line in lines.values() if line["section"] == section]
        if found:
            parts.append(_table(title, found, before))
            parts += [NOTES[section]] if section in NOTES else []
    *packages, last = (f"`{name}`" for name in gpu.PACKAGES.values())
    needed = f"before it begins. It needs {', '.join(packages)} and {last}."
    needed = textwrap.fill(needed, 100, break_on_hyphens=False)
    parts.append(ON_A_GPU.format(needed=needed))
    parts.append(_many_gpus(lines))
    return "\n".join(parts)


def newest(paths: Iterable[Path]) -> dict[tuple[str, str, str, str], Line]:
    """Return the last line of each figure, by machine, section, name and limit."""
    found = {}
    for path in sorted(paths):
        for line in read_lines(path):
            found[_key(line)] = line
    return found


def _key(line: Line) -> tuple[str, str, str, str]:
    return line["machine"], line["section"], line["name"], line.get("limit_name", "")


def _table(title: str, lines: list[Line], before: dict[tuple[str, str, str, str], Line]) -> str:
    rows = [f"## {title}", ""]
    for machine in dict.fromkeys(line["machine"] for line in lines):
        here = [line for line in lines if line["machine"] == machine]
        commands = dict.fromkeys(f"`{line['command']}`" for line in here)
        rows += [f"{machine}; {', '.join(commands)}", ""]
        with_before = any(_key(line) in before for line in here)
        columns = ["", "found", "limit", "ratio", *(["before (ratio)"] if with_before else [])]
        rows += [_row(columns), _row(["---"] * len(columns))]
        for line in here:
            cells = [line["name"], f"{line['value']:g} {line['unit']}"]
            cells += [f"{line['limit_name']}: {line['limit']:g}" if "limit" in line else ""]
            cells += [f"{line['ratio']:.2f}" if "ratio" in line else ""]
            if with_before:
                old = before.get(_key(line))
                cells.append("" if old is None else _figure(old))
            rows.append(_row(cells))
        rows.append("")
    return "\n".join(rows)


def _figure(line: Line) -> str:
    ratio = f" ({line['ratio']:.2f})" if "ratio" in line else ""
    return f"{line['value']:g} {line['unit']}{ratio}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ---------------------------------------------------------------- computed, not measured

PARAMETERS = 73.66e6 + 28.98e6  # generator and discriminator at 512 x 512
IMAGES_PER_SECOND = 20.0  # of one GPU at 512 x 512 and T = 2: an aim, measured nowhere yet
BATCH = 8
LINKS = {"inside a node": 350e9, "between nodes": 40e9}  # bytes/s of one GPU, after protocol losses
GPUS_PER_NODE = 8
IMAGE_BYTES = 100e3
SHARD_IMAGES = 1000

ASSUMED = """\
What follows is arithmetic. Measured above: each step reduces {ratio:g} times the bytes of both
networks' gradients ({gradients:.0f} MB in float32 at 512x512), and an image of the stream
(crop 256) costs {cost:g} ms of one core. Assumed: {rate:g} images/s and batch {batch} on one GPU
(an aim, measured on none yet); {inside:g} GB/s a GPU inside a node of {node}, {between:g} GB/s
between nodes; a ring all-reduce that nothing overlaps; {image:g} kB an image, {shard} images a
shard, one request a shard."""


def step_on(gpus: int, ratio: float) -> tuple[float, float]:
    """Compute the exchange and the efficiency of a step on many GPUs.

    Args:
        gpus: Number of GPUs, eight to a node.
        ratio: Bytes reduced in a step over the bytes of all gradients.

    Returns:
        Seconds of a ring all-reduce, and compute / (compute + exchange) without any overlap.
    """
    link = LINKS["inside a node" if gpus <= GPUS_PER_NODE else "between nodes"]
    exchange = 2 * (gpus - 1) / gpus * 4 * PARAMETERS * ratio / link
    compute = BATCH / IMAGES_PER_SECOND
    return exchange, compute / (compute + exchange)


def _many_gpus(lines: dict[tuple[str, str, str, str], Line]) -> str:
    ratios = [line["ratio"] for line in lines.values() if line["section"] == "scale"
              and "in a step," in line["name"]]  # fmt: skip
    costs = [line["value"] for line in lines.values() if line["section"] == "data"
             and re.match("an image of the stream .*no workers$", line["name"])]  # fmt: skip
    if not ratios or not costs:
        return ""
    ratio, cost = max(ratios), min(costs)  # the least: that of the machine that was least busy
    rows = [
        "## Many GPUs: computed, not measured",
        "",
        ASSUMED.format(
            ratio=ratio,
            gradients=4 * PARAMETERS / 1e6,
            cost=cost,
            rate=IMAGES_PER_SECOND,
            batch=BATCH,
            inside=LINKS["inside a node"] / 1e9,
            between=LINKS["between nodes"] / 1e9,
            node=GPUS_PER_NODE,
            image=IMAGE_BYTES / 1e3,
            shard=SHARD_IMAGES,
        ),
        "",
        _row(["GPUs", "exchange a step, ms", "efficiency", "images/s", "storage, MB/s",
              "requests/s", "cores for the data"]),
        _row(["---"] * 7),
    ]  # fmt: skip
    for gpus in (1, 8, 16, 32, 64, 128, 256, 512):
        exchange, efficiency = step_on(gpus, ratio)
        images = gpus * IMAGES_PER_SECOND * efficiency
        rows.append(
            _row([
                str(gpus), f"{1e3 * exchange:.1f}", f"{100 * efficiency:.0f} %", f"{images:.0f}",
                f"{images * IMAGE_BYTES / 1e6:.0f}", f"{images / SHARD_IMAGES:.2f}",
                f"{images * cost / 1e3:.2f}",
            ])
        )  # fmt: skip
    return "\n".join([*rows, ""])
