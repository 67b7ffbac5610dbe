"""A sweep as a SLURM array: one task per cell."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdm_lightning.errors import InputError
from sdm_lightning.files import write_atomically
from sdm_lightning.reports.paper import has_table
from sdm_lightning.sweeps.grid import Cell, Sweep, setting

SCRIPT = """\
#!/bin/bash
# {name}: {count} cells, one array task each. Written by `sdm sweep`; start it with: sbatch {file}
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --nodes=1
#SBATCH --gpus={gpus}
#SBATCH --cpus-per-gpu=10
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
#SBATCH --output={folder}/slurm-%A_%a.txt

cells=({cells})
cell="${{cells[$SLURM_ARRAY_TASK_ID]}}"
unset SLURM_NTASKS  # with several GPUs, the run itself starts a process for each

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

    Raises:
        InputError: If a cell asks for more than one node, which an array task does not have.
    """
    lines = [(*cell.argv, *extra) for cell in cells]
    for cell, line in zip(cells, lines, strict=True):
        if (nodes := setting(line, "trainer.num_nodes")) not in (None, 1):
            raise InputError(
                f"cell {cell.name}: trainer.num_nodes is {nodes}, but an array task has one node; "
                "give its GPUs as trainer.devices, or start this row by itself with "
                "experiments/cluster/slurm.sbatch"
            )
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
        gpus=max(_number_of_gpus(setting(line, "trainer.devices")) for line in lines),
        cells=" ".join(shlex.quote(cell.name) for cell in cells),
        command=shlex.join(words),
    )
    write_atomically(path, text)
    path.chmod(0o755)
    print(f"{len(cells)} cells; start them with: sbatch {path}")
    print(f"sbatch's own options win over the script's: sbatch --time=24:00:00 --gpus=8 {path}")
    for table in dict.fromkeys(setting(line, "evaluation.facts.table") for line in lines):
        if has_table(table):
            show = ["sdm", "table", table, "--scale", scale]
            if folder.parts[:1] != ("runs",):  # where tables look by default
                show += ["--results", json.dumps([str(folder)])]
            print(f"then: {shlex.join(show)}")


def _number_of_gpus(devices: Any) -> int:
    """Read ``trainer.devices``: a number or a list; with ``auto``, one."""
    if isinstance(devices, list):
        return max(1, len(devices))
    return max(1, devices) if isinstance(devices, int) else 1
