"""A sweep as a SLURM array: one task per cell."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from sdm_lightning.files import write_atomically
from sdm_lightning.sweeps.grid import Cell, Sweep

SCRIPT = """\
#!/bin/bash
# {name}: {count} cells, one array task each. Written by `sdm sweep`; start it with: sbatch {file}
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --gpus=1
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --output={folder}/slurm-%A_%a.txt

cells=({cells})
cell="${{cells[$SLURM_ARRAY_TASK_ID]}}"

# In the background, so that bash can pass the signal on while it waits.
{command} --only "$cell" &
child=$!
trap 'kill -TERM $child' TERM
wait $child; status=$?
while kill -0 $child 2>/dev/null; do wait $child; status=$?; done

# 75: stopped by a signal, with a checkpoint: back into the queue.
if [ $status -eq 75 ]; then scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"; fi
exit $status
"""


def write_array(
    path: Path,
    sweep: Sweep,
    cells: Sequence[Cell],
    scale: str,
    folder: Path,
    test: bool,
    extra: tuple[str, ...],
) -> None:
    """Write the array script and print how to start it.

    Args:
        path: The script.
        sweep: The sweep.
        cells: Its cells; each becomes the array task of its position.
        scale: As given to ``sdm sweep``.
        folder: Folder of the runs; created now, since SLURM does not create that of its logs.
        test: As given to ``sdm sweep``.
        extra: As given to ``sdm sweep``.
    """
    words = ["sdm", "sweep", str(sweep.path), "--scale", scale, "--output", str(folder)]
    if not test:
        words += ["--test", "false"]
    if extra:
        words += ["--extra", json.dumps(extra)]
    folder.mkdir(parents=True, exist_ok=True)
    text = SCRIPT.format(
        name=sweep.name,
        count=len(cells),
        last=len(cells) - 1,
        file=path,
        folder=folder,
        cells=" ".join(shlex.quote(cell.name) for cell in cells),
        command=shlex.join(words),
    )
    write_atomically(path, text)
    path.chmod(0o755)
    print(f"{len(cells)} cells; start them with: sbatch {path}")
    print(f"then: {shlex.join(words)}  (skips what is done)")
