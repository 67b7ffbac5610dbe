"""``sdm sweep``: run a grid without a server."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from types import FrameType
from typing import IO, Any, Literal

from sdm_lightning.data.shards.index import expand_braces
from sdm_lightning.data.shards.remote import local_path
from sdm_lightning.errors import PREEMPTED, InputError
from sdm_lightning.files import free_path, write_atomically
from sdm_lightning.reports.results import label_of, read_result_lines
from sdm_lightning.signals import handled
from sdm_lightning.sweeps.grid import Cell, read_sweep, setting

SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
"""The data that each command reads."""

Status = Literal["done", "skipped", "failed", "preempted"]
"""How a cell ended."""

KEPT_LINES = 12
"""Lines of a failed run's log that are shown."""


def run_sweep(
    file: str,
    scale: str = "small",
    output: str | None = None,
    devices: str = "",
    workers: int = 1,
    extra: list[str] | None = None,
    test: bool = True,
    only: str | None = None,
    dry_run: bool = False,
    slurm: str | None = None,
) -> None:
    """Run a W&B sweep file's grid here, without a server.

    Each cell is a fresh process with a folder and a log of its own. Finished cells are skipped, a
    failed one does not stop the others, and a table of all results is printed at the end; the exit
    status is 1 if a cell failed. An interrupted sweep continues where it stopped.

    Args:
        file: A W&B sweep file of method grid, such as experiments/sweeps/table1.yaml.
        scale: Name of the configs/scale/ file that replaces ${envvar:SDM_SCALE} in the sweep.
        output: Folder of the runs; default: runs/SCALE/NAME.
        devices: GPUs to use, one cell on each at a time, such as 0,1,2,3.
        workers: Cells at a time, without devices.
        extra: More arguments for every run, such as '["--trainer.max_epochs=1"]'.
        test: Test each trained cell on its last checkpoint.
        only: Only these cells: names or parts of names, separated by commas; each has to match.
        dry_run: Print the commands and run nothing.
        slurm: Write a SLURM array script to this file instead of running; each cell is one task on
            one node, with as many GPUs as its trainer.devices.

    Raises:
        InputError: If the sweep is not a grid, no cell is selected, or config files or data are
            missing.
        SystemExit: With status 1 if a cell failed, 75 if one was stopped by a signal.
    """
    sweep = read_sweep(file)
    cells = select(sweep.cells(scale), only)
    sweep.refuse_missing_configs(cells, scale, extra or ())
    folder = Path(output or f"runs/{scale}/{sweep.name}")
    plans = [Plan(cell, folder / cell.name, tuple(extra or ()), test) for cell in cells]
    if dry_run:
        for plan in plans:
            for words in plan.commands():
                print(shlex.join(["sdm", *words]))
        return
    if slurm is not None:
        from sdm_lightning.sweeps.slurm import write_array

        here = {"devices": devices, "workers": workers != 1}
        if unused := [name for name, given in here.items() if given]:
            raise InputError(
                f"{', '.join(unused)}: only for cells that run here; cannot be given with slurm"
            )
        write_array(Path(slurm), sweep, cells, scale, folder, test, tuple(extra or ()))
        return

    _refuse_missing_data(plans)
    places: list[str | None] = [d.strip() for d in devices.split(",") if d.strip()] or [None] * max(
        1, workers
    )
    statuses = _run_all(plans, places)
    all_plans = [replace(plans[0], cell=x, folder=folder / x.name) for x in sweep.cells(scale)]
    collect_results(folder, all_plans)
    _print_end(sweep.name, plans, statuses, folder)
    if "failed" in statuses:
        raise SystemExit(1)
    if "preempted" in statuses:
        raise SystemExit(PREEMPTED)


def select(cells: Sequence[Cell], only: str | None) -> list[Cell]:
    """Select the cells that ``only`` names: whole names where they match, else parts of names.

    Raises:
        InputError: If a word matches no cell, or there is no word.
    """
    if only is None:
        return list(cells)
    names = [cell.name for cell in cells]
    selected: set[str] = set()
    for word in [word.strip() for word in only.split(",") if word.strip()] or [only]:
        found = {word} if word in names else {name for name in names if word and word in name}
        if not found:
            raise InputError(
                f"only: no cell's name contains {word!r}; the sweep's {len(names)} cells are "
                f"{names[0]} to {names[-1]}"
            )
        selected |= found
    return [cell for cell in cells if cell.name in selected]


@dataclass(frozen=True)
class Plan:
    """What it takes to run one cell in its folder."""

    cell: Cell
    folder: Path
    extra: tuple[str, ...]
    test: bool

    def commands(self) -> list[list[str]]:
        """List the command lines after ``sdm``: the cell's own, and the test of what it trained."""
        words = [*self.cell.argv, f"--runs_dir={self.folder.parent}", f"--name={self.folder.name}"]
        words += self.extra
        if self.cell.command != "fit":
            return [words]
        commands = [[*words, "--ckpt_path=auto"]]
        if self.test:
            commands.append(["test", *words[1:], "--ckpt_path=last"])
        return commands

    def state(self) -> dict[str, Any]:
        """Read the ``cell.json`` of an earlier call; empty if there is none."""
        try:
            state = json.loads((self.folder / "cell.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return state if isinstance(state, dict) else {}

    def write_state(self, status: str, stages: Sequence[str]) -> None:
        """Write ``cell.json``, whole or not at all."""
        state = {
            "fingerprint": self.cell.fingerprint(self.extra),
            "status": status,
            "stages": stages,
        }
        write_atomically(self.folder / "cell.json", json.dumps(state, indent=1))

    def is_done(self) -> bool:
        """Return whether an earlier call finished these command lines with these configs."""
        return self.state().get("status") == "done" and not self.remaining()

    def remaining(self) -> list[list[str]]:
        """List the command lines that earlier calls did not finish."""
        done = [] if self.is_changed() else self.state().get("stages", [])
        return [words for words in self.commands() if words[0] not in done]

    def is_changed(self) -> bool:
        """Return whether an earlier call ran another recipe in this folder."""
        now = self.cell.fingerprint(self.extra)
        return bool(self.state().get("fingerprint", now) != now)


def _refuse_missing_data(plans: Sequence[Plan]) -> None:
    """Refuse local data that are not there, on which every cell would fail by itself."""
    for plan in plans:
        for words in plan.remaining():
            for split in SPLITS.get(words[0], ()):
                found = setting(words, f"data.{split}") or []
                for place in found if isinstance(found, list) else [found]:
                    paths = [local_path(url) for url in expand_braces(str(place))]
                    if any(path is not None and not os.path.exists(path) for path in paths):
                        raise InputError(
                            f"{place}: no such data, but data.{split} of cell {plan.cell.name} "
                            "names it; `sdm shards IMAGES OUT` packs images, `make demo` those of "
                            "scale tiny (docs/reproduce.md, Data)"
                        )


def _run_all(plans: Sequence[Plan], places: Sequence[str | None]) -> list[Status]:
    free: Queue[str | None] = Queue()
    for place in places:
        free.put(place)
    printing = threading.Lock()
    stop = threading.Event()
    running: set[subprocess.Popen[bytes]] = set()

    def one(index: int, plan: Plan) -> Status:
        def say(text: str) -> None:
            with printing:
                print(f"[{index:>{len(str(len(plans)))}}/{len(plans)}] {text}", flush=True)

        place = free.get()
        try:
            return _run_cell(plan, place, say, stop, running)
        finally:
            free.put(place)

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        for process in list(running):
            process.send_signal(signal.SIGTERM)

    # SLURM and Ctrl-C: the runs save a checkpoint and end, and the cells stay unfinished.
    with (
        handled((signal.SIGTERM, signal.SIGINT), ask_to_stop),
        ThreadPoolExecutor(len(places)) as pool,
    ):
        return list(pool.map(one, range(1, len(plans) + 1), plans))


def _run_cell(
    plan: Plan,
    place: str | None,
    say: Callable[[str], None],
    stop: threading.Event,
    running: set[subprocess.Popen[bytes]],
) -> Status:
    name = plan.cell.name
    if stop.is_set():
        return "preempted"
    if plan.is_done():
        say(f"{name}: done before, skipped")
        return "skipped"
    if plan.is_changed():  # nothing that was trained is ever deleted
        folder = plan.folder
        folder.rename(free_path(lambda number: folder.with_name(f".{name}.before{number}")))
        say(f"{name}: its recipe changed; the earlier run was set aside")
    done_stages = plan.state().get("stages", [])
    plan.write_state("running", done_stages)
    started = time.monotonic()
    for words in plan.remaining():
        if stop.is_set():  # the signal came after the last batch of the stage before
            plan.write_state("preempted", done_stages)
            say(f"{name}: stopped before {words[0]}")
            return "preempted"
        say(f"{name}: {words[0]} ..." + (f" on device {place}" if place else ""))
        code = _run_process(plan, words, place, running, stop)
        if code:
            seconds = time.monotonic() - started
            stopped = code == PREEMPTED or stop.is_set()
            status: Status = "preempted" if stopped else "failed"
            plan.write_state(status, done_stages)
            say(f"{name}: {words[0]} {status} (exit status {code}) after {seconds:.0f} s; "
                f"log: {plan.folder / 'log.txt'}")  # fmt: skip
            if status == "failed":
                print(_tail(plan.folder / "log.txt"), flush=True)
            return status
        done_stages = [*done_stages, words[0]]
        plan.write_state("running", done_stages)
    plan.write_state("done", done_stages)
    say(f"{name}: done in {time.monotonic() - started:.0f} s")
    return "done"


def start_process(
    words: Sequence[str], environment: Mapping[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start ``sdm WORDS`` in a new interpreter; all its output goes to ``log``."""
    command = [sys.executable, "-m", "sdm_lightning", *words]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _run_process(
    plan: Plan,
    words: list[str],
    place: str | None,
    running: set[subprocess.Popen[bytes]],
    stop: threading.Event,
) -> int:
    environment = dict(os.environ)
    if place is not None:
        environment["CUDA_VISIBLE_DEVICES"] = place
    with (plan.folder / "log.txt").open("ab") as log:
        log.write(f"\n$ {shlex.join(['sdm', *words])}\n".encode(errors="backslashreplace"))
        log.flush()
        process = start_process(words, environment, log)
        running.add(process)
        if stop.is_set():  # the signal came while it was started
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait()
        finally:
            running.discard(process)


def _tail(log: Path) -> str:
    """Return the end of what the last command of a run printed."""
    lines = log.read_text(errors="replace").splitlines()
    starts = [k for k, line in enumerate(lines) if line.startswith("$ sdm ")]
    return "\n".join(f"    | {line}" for line in lines[max(starts, default=-1) + 1 :][-KEPT_LINES:])


def collect_results(folder: Path, plans: Sequence[Plan]) -> None:
    """Gather the result lines of all finished cells in ``folder/results.jsonl``.

    Cells of another recipe than the sweep's present one are left out, with a line that says so.
    """
    lines, others = [], []
    for plan in plans:
        results = plan.folder / "results.jsonl"
        if plan.state().get("status") != "done" or not results.is_file():
            continue
        if plan.is_changed():
            others.append(plan.cell.name)
            continue
        lines += read_result_lines(results)
    if others:
        print(
            f"left out of the results, as the recipe has changed since: {', '.join(others)}; `sdm "
            "table` still reads them: run these cells again, or give their folders a name that "
            "starts with a dot"
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_atomically(folder / "results.jsonl", text)


def _print_end(name: str, plans: Sequence[Plan], statuses: Sequence[Status], folder: Path) -> None:
    from sdm_lightning.reports.paper import has_table
    from sdm_lightning.reports.tables import table_text

    done, skipped, stopped = map(statuses.count, ("done", "skipped", "preempted"))
    failed = [p.cell.name for p, s in zip(plans, statuses, strict=True) if s == "failed"]
    print(
        f"\n{name}: {done} done, {skipped} skipped, {len(failed)} failed"
        + (f" ({', '.join(failed)})" if failed else "")
        + (f", {stopped} stopped: call it again to continue" if stopped else "")
    )
    results = folder / "results.jsonl"
    found = [label_of(x, "table") for x in read_result_lines(results)]
    for table in dict.fromkeys(table for table in found if table and has_table(table)):
        print()
        try:
            print(table_text(table, results=[str(results)]))
        except InputError as error:  # a search over a setting: its lines are no table's cells
            print(f"no table: {error}")
    print(f"\nresults: {results}")
