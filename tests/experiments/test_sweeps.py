"""Sweep files hold for W&B and for the local runner; the runner keeps what is done."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from sdm_lightning.cli.trainer import SDMCommandLine
from sdm_lightning.errors import InputError
from sdm_lightning.sweeps import read_sweep, runner
from sdm_lightning.sweeps.grid import Cell, setting

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "experiments" / "sweeps").glob("*.yaml"))
ONLINE = "--config=configs/logger/wandb_online.yaml"
BY_NAME = pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)


@BY_NAME
def test_valid_by_wandbs_schema(path: Path) -> None:
    """The schema is wandb's own, of its package ``sweeps`` 0.3.0 (MIT)."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parent / "wandb_sweep_schema.json").read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


def wandb_agents_command(content: dict[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """What wandb's agent starts, by wandb's own functions, put together as its agent does."""
    words = create_sweep_command(list(content["command"]))
    made = create_sweep_command_args({"args": {k: {"value": v} for k, v in parameters.items()}})
    macros = {"env": ["/usr/bin/env"], "program": [content["program"]], **made}
    command: list[str] = []
    for word in map(str, words):
        if word.startswith("${") and word.endswith("}"):
            command += macros.get(word[2:-1]) or []
        else:
            command.append(word)
    return command


@BY_NAME
def test_same_command_as_wandbs_agent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDM_SCALE", "paper")
    content = yaml.safe_load(path.read_text())
    sweep = read_sweep(path)
    parameters = {key: values[-1] for key, values in sweep.values.items()}
    parameters |= {key: spec["max"] for key, spec in sweep.searched.items()}
    expected = wandb_agents_command(content, parameters)
    command = expected.index(content["program"]) + 1
    assert sweep.argv(parameters, "paper") == expected[command:]
    assert expected[command] in ("fit", "test")


def test_the_searchs_command_parses(
    build: Callable[..., SDMCommandLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grids' cells are built one by one in test_overlays; this is the one that is no grid."""
    monkeypatch.setattr(
        "sdm_lightning.training.callbacks.evaluation.build_features", lambda *_: None
    )
    sweep = read_sweep(ROOT / "experiments" / "sweeps" / "search.yaml")
    with pytest.raises(InputError, match="wandb sweep"):
        sweep.cells()
    point = {key: spec["min"] for key, spec in sweep.searched.items()}
    assert set(point) == {
        "model.optimizer_g.lr", "model.optimizer_d.lr", "model.losses.r1_gamma",
        "model.losses.perceptual", "model.losses.likelihood", "model.diffusion.init_args.alpha",
    }  # fmt: skip
    words = sweep.argv(point, "tiny")
    cli = build(*words, "--trainer.logger=false")
    assert cli.model.optimizer_g.lr == 1e-4
    assert cli.model.losses.likelihood == 1e-6
    with pytest.raises(SystemExit):
        build(*words, "--model.losses.likelyhood=1")


def cell_script_calls(tmp_path: Path, words: Sequence[str], scale: str = "paper") -> list[str]:
    """The command lines that ``cell.sh`` starts, with a stand-in for ``sdm``."""
    stub = tmp_path / "sdm"
    stub.write_text('#!/bin/sh\necho "$@ RESUME=$WANDB_RESUME" >> "$CALLS"\n')
    stub.chmod(stub.stat().st_mode | stat.S_IEXEC)
    calls = tmp_path / "calls"
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "WANDB_RUN_ID": "abc123",
        "SDM_SCALE": scale,
    }
    script = ROOT / "experiments" / "sweeps" / "cell.sh"
    subprocess.run(["sh", script, *words], env=environment, cwd=ROOT, check=True)
    return calls.read_text().splitlines()


def test_cell_script_names_the_run_and_tests_it(tmp_path: Path) -> None:
    """What W&B's agent starts: training and test under the agent's own run id."""
    assert cell_script_calls(tmp_path, ["fit", "--config=a b.yaml", "--x=1"]) == [
        f"fit --config=a b.yaml --x=1 {ONLINE} --name abc123 --ckpt_path auto RESUME=allow",
        f"test --config=a b.yaml --x=1 {ONLINE} --name abc123 --ckpt_path last RESUME=allow",
    ]


@pytest.mark.parametrize("name", ["table1", "tableD3", "tableB1"])
def test_cell_script_adds_the_files_for_the_scale(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents know only the file's own command; ``sdm sweep`` adds the files by itself."""
    monkeypatch.setenv("SDM_SCALE", "small")
    sweep = read_sweep(ROOT / "experiments" / "sweeps" / f"{name}.yaml")
    parameters = {key: values[-1] for key, values in sweep.values.items()}
    content = yaml.safe_load(sweep.path.read_text())
    command = wandb_agents_command(content, parameters)
    words = command[command.index(content["program"]) + 1 :]
    expected = sweep.argv(parameters, "small")
    assert expected != words
    first = cell_script_calls(tmp_path, words, "small")[0]
    assert first.startswith(" ".join([*expected, ONLINE, "--name abc123"]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_cell_script_passes_a_signal_on(tmp_path: Path, number: signal.Signals) -> None:
    """The fit saves a checkpoint and ends with 75; it is not tested then."""
    stub = tmp_path / "sdm"
    stub.write_text(
        "#!/bin/sh\ntrap 'sleep 0.2; echo saved; exit 75' TERM\nsleep 0.2\necho \"$1\"\n"
        "sleep 5 > /dev/null & wait\n"
    )
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SDM_SCALE": "tiny"}
    script = str(ROOT / "experiments" / "sweeps" / "cell.sh")
    with subprocess.Popen(
        ["sh", script, "fit"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "fit\n"
        process.send_signal(number)
        assert process.stdout.read() == "saved\n"
    assert process.returncode == 75


def test_the_search_stops_runs_early_at_small_scale() -> None:
    """Hyperband compares runs after ``min_iter`` validations, so some must come before the end."""
    sweep = read_sweep(ROOT / "experiments" / "sweeps" / "search.yaml")
    stop = yaml.safe_load(sweep.path.read_text())["early_terminate"]
    words = sweep.argv({}, "small")
    names = ("budget.max_images", "data.global_batch_size", "trainer.val_check_interval")
    images, batch, interval = (setting(words, name) for name in names)
    assert images // batch // interval > stop["min_iter"]


def test_scripts_that_are_called_again_continue_their_runs() -> None:
    scripts = sorted((ROOT / "experiments").rglob("*.sh"))
    texts = {path.name: path.read_text().replace("\\\n", " ") for path in scripts}
    fits = [(n, x) for n, text in texts.items() for x in text.splitlines() if "sdm fit " in x]
    assert {"cell.sh", "stem.sh", "rows.sh"} <= {name for name, _ in fits}
    assert [line for line in fits if "--ckpt_path auto" not in line[1]] == []


def test_the_slurm_script_logs_where_a_new_checkout_has_a_folder() -> None:
    """SLURM makes no folder for a log: the job would fail without a word."""
    text = (ROOT / "experiments" / "cluster" / "slurm.sbatch").read_text()
    assert "\n#SBATCH --output=slurm-%j.txt\n" in text


@pytest.fixture
def srun_words(tmp_path: Path) -> Callable[..., str]:
    """What ``slurm.sbatch`` calls srun with."""
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "7",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "8",
    }  # fmt: skip
    script = ROOT / "experiments" / "cluster" / "slurm.sbatch"

    def run(*words: str, **more: str) -> str:
        command = ["bash", str(script), *words]
        return subprocess.check_output(command, env=environment | more, text=True)

    return run


def test_the_slurm_scripts_tasks_get_their_cores(srun_words: Callable[..., str]) -> None:
    """Since SLURM 22.05, srun does not take them from the job."""
    out = srun_words("fit")
    assert out.startswith("--cpus-per-task=7 ")
    assert "fit --trainer.num_nodes 2 --trainer.devices 4 --ckpt_path auto\n" in out


def test_the_slurm_script_ends_tasks_that_wait_for_a_failed_one(
    srun_words: Callable[..., str],
) -> None:
    """Those of predict share nothing at the end, and the slower ones go on."""
    assert " --wait=300 " in srun_words("fit")
    assert " --wait=0 " in srun_words("predict")


@pytest.mark.parametrize("given", ["--ckpt_path=early.ckpt", "--ckpt_path early.ckpt"])
def test_the_slurm_scripts_first_start_takes_the_users_checkpoint(
    srun_words: Callable[..., str], given: str
) -> None:
    words = ["fit", "--name", "x", *given.split()]
    assert "--ckpt_path auto" not in srun_words(*words)
    assert srun_words(*words, SLURM_RESTART_COUNT="1").endswith(" --ckpt_path auto\n")


def test_torchrun_waits_for_the_checkpoint_of_a_run_that_stops(tmp_path: Path) -> None:
    (tmp_path / "python").write_text('#!/bin/sh\necho "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT"\n')
    (tmp_path / "python").chmod(0o755)
    script = ROOT / "experiments" / "cluster" / "torchrun_node.sh"
    environment = {**os.environ, "PYTHON": str(tmp_path / "python")}
    assert subprocess.check_output(["sh", script, "fit"], env=environment, text=True) == "600\n"


# ---------------------------------------------------------------------- reading


def write_sweep(folder: Path, **changes: Any) -> Path:
    content = {
        "name": "four",
        "program": "sdm",
        "method": "grid",
        "command": ["${env}", "${program}", "fit", "${args}", "--scale=${envvar:SDM_SCALE}"],
        "parameters": {
            "seed_everything": {"values": [0, 1]},
            "config": {"values": ["rows/A.yaml", "rows/B.yaml"]},
        },
    }
    (folder / "rows").mkdir(exist_ok=True)
    for row in "AB":
        (folder / "rows" / f"{row}.yaml").write_text(f"row: {row}\n")
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return path


def test_cells(workdir: Path) -> None:
    cells = read_sweep(write_sweep(workdir)).cells("tiny")
    assert [cell.name for cell in cells] == ["A-seed0", "B-seed0", "A-seed1", "B-seed1"]
    assert cells[3].argv == (
        "fit", "--seed_everything=1", "--config=rows/B.yaml", "--scale=tiny",
    )  # fmt: skip


def test_a_file_for_the_scale_follows_its_row(workdir: Path) -> None:
    path = write_sweep(workdir)
    (workdir / "rows" / "B.tiny.yaml").write_text("row: small B\n")
    tiny, paper = (read_sweep(path).cells(scale)[1].argv for scale in ("tiny", "paper"))
    assert tiny[2:4] == ("--config=rows/B.yaml", "--config=rows/B.tiny.yaml")
    assert "--config=rows/B.tiny.yaml" not in paper


def test_checkpoints_of_other_sweeps_follow_the_scale(workdir: Path) -> None:
    place = "runs/paper/table1/A-seed1/checkpoints/last.ckpt"
    path = write_sweep(
        workdir,
        parameters={"ckpt_path": {"values": [place, place.replace("seed1", "seed2")]},
                    "model.test_iterations": {"values": [4, 10]}},
    )  # fmt: skip
    cells = read_sweep(path).cells("tiny")
    assert [c.name for c in cells] == ["A-seed1-t4", "A-seed1-t10", "A-seed2-t4", "A-seed2-t10"]
    assert f"--ckpt_path={place.replace('runs/paper', 'runs/tiny')}" in cells[0].argv


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "bayes"}, "method is bayes"),
        ({"parameters": {"x": {"min": 0, "max": 1}}}, "values only"),
        ({"parameters": {"x": 3}}, "parameter x has neither"),
        ({"command": ["${env}", "python", "train.py", "${args}"]}, "lacks the program"),
        ({"command": None}, "lacks the program"),
        ({"parameters": {"a": {"values": ["x/k.yaml", "y/k.yaml"]}}}, "two cells have the name"),
    ],
)
def test_bad_sweeps_are_named(workdir: Path, changes: dict[str, Any], message: str) -> None:
    path = write_sweep(workdir, **changes)
    with pytest.raises(InputError, match=message):
        read_sweep(path).cells()


def test_the_last_config_or_flag_sets_a_key(workdir: Path) -> None:
    Path("a.yaml").write_text("trainer: {devices: 4}")
    Path("b.yaml").write_text("trainer: {precision: 32-true}\nmodel: null")
    words = ["fit", "--config=a.yaml", "--config", "b.yaml"]
    assert setting(words, "trainer.devices") == 4
    assert setting([*words, "--trainer.devices=[0, 2]"], "trainer.devices") == [0, 2]
    assert setting(words, "model.seed") is None
    inline = [*words, "--config={trainer: {devices: 8}}", "--config", "{data: null}"]
    assert setting(inline, "trainer.devices") == 8
    with pytest.raises(InputError, match="not valid YAML"):
        setting(["--config={trainer: 8"], "trainer.devices")
    with pytest.raises(InputError, match=r"--trainer\.devices \[: not valid YAML"):
        setting(["--trainer.devices=["], "trainer.devices")


def test_a_long_config_in_place_of_a_file(
    fake_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Longer than a file's name may be, both in the sweep file and in the extra arguments."""
    inline = [f"{{data: {{train: here, note: {letter * 300}}}}}" for letter in "ab"]
    (fake_runs / "here").mkdir()
    path = str(write_sweep(fake_runs, parameters={"config": {"values": inline}}))
    runner.run_sweep(path, "tiny", "out", test=False, extra=[f"--config={inline[0]}"])
    assert "four: 2 done, 0 skipped, 0 failed" in capsys.readouterr().out
    runner.run_sweep(path, "tiny", "out", slurm="array.sh", extra=["--config", inline[1]])


def test_missing_and_broken_files(workdir: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_sweep("none.yaml")
    Path("broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not valid YAML"):
        read_sweep("broken.yaml")
    Path("other.yaml").write_text("a: 1")
    with pytest.raises(InputError, match="not a W&B sweep file"):
        read_sweep("other.yaml")


# ---------------------------------------------------------------------- running

FAKE = """
import json, os, pathlib, signal, sys
command, *rest = sys.argv[1:]
options = dict(word.removeprefix("--").split("=", 1) for word in rest)
folder = pathlib.Path(options["runs_dir"]) / options["name"]
with open("calls.txt", "a") as calls:
    calls.write(f"{command} {options['name']} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\\n")
pathlib.Path("tags.txt").write_text(os.environ.get("WANDB_TAGS", ""))
if command == "fit" and options["name"] in os.environ.get("FAIL", "").split(","):
    print("the disk is full")
    sys.exit(int(os.environ.get("CODE", "1")))
if command == "fit" and "STOP" in os.environ:  # by a signal that comes after the last batch
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getppid(), signal.SIGTERM)
    signal.sigwait([signal.SIGTERM])
if command == "test":
    row = pathlib.Path(options["config"]).stem
    line = {"metrics": {"psnr_hole/x": 10 + int(options["seed_everything"])}, "table": "table1",
            "row": row, "seed": int(options["seed_everything"]), "protocol": "x"}
    with open(folder / "results.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")
"""


@pytest.fixture
def fake_runs(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs that take no time: the sweep's own processes, but of a ten-line program."""
    program = workdir / "fake.py"
    program.write_text(FAKE)

    def start(
        words: Sequence[str], environment: Mapping[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", str(program), *words]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    monkeypatch.setattr(runner, "start_process", start)
    return workdir


def calls(folder: Path) -> list[str]:
    file = folder / "calls.txt"
    found = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def collected(folder: Path) -> list[tuple[str, int]]:
    """Row and seed of a sweep's results."""
    lines = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return [(line["row"], line["seed"]) for line in lines]


def test_a_failed_cell_stops_no_other_and_a_second_call_does_only_what_is_left(
    fake_runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_sweep(fake_runs))
    monkeypatch.setenv("FAIL", "B-seed0")
    with pytest.raises(SystemExit) as end:
        runner.run_sweep(path, "tiny", "out")
    assert end.value.code == 1
    printed = capsys.readouterr().out
    assert "B-seed0: fit failed (exit status 1)" in printed
    assert "the disk is full" in printed
    assert "four: 3 done, 0 skipped, 1 failed (B-seed0)" in printed
    assert "10.50 ± 0.71" in printed, "the table: A over two seeds"
    assert len(calls(fake_runs)) == 7
    assert collected(fake_runs / "out") == [("A", 0), ("A", 1), ("B", 1)]

    monkeypatch.delenv("FAIL")
    runner.run_sweep(path, "tiny", "out")
    printed = capsys.readouterr().out
    assert printed.count("done before, skipped") == 3
    assert "four: 1 done, 3 skipped, 0 failed" in printed
    assert calls(fake_runs) == ["fit B-seed0 -", "test B-seed0 -"]

    runner.run_sweep(path, "tiny", "out")
    assert calls(fake_runs) == []


def test_a_changed_recipe_is_another_run_and_keeps_the_first(
    fake_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_sweep(fake_runs))
    runner.run_sweep(path, "tiny", "out", only="A-seed0")
    calls(fake_runs)
    (fake_runs / "rows" / "A.yaml").write_text("row: A, edited\n")
    runner.run_sweep(path, "tiny", "out", only="A-seed0,B-seed1")
    assert "set aside" in capsys.readouterr().out
    assert calls(fake_runs) == [
        "fit A-seed0 -", "test A-seed0 -", "fit B-seed1 -", "test B-seed1 -",
    ]  # fmt: skip
    assert (fake_runs / "out" / ".A-seed0.before1" / "results.jsonl").is_file()


def test_results_of_an_earlier_recipe_are_left_out(
    fake_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mean over seeds of two recipes would be of neither."""
    path = str(write_sweep(fake_runs))
    runner.run_sweep(path, "tiny", "out")
    (fake_runs / "rows" / "A.yaml").write_text("row: A, edited\n")
    runner.run_sweep(path, "tiny", "out", only="A-seed0")
    printed = capsys.readouterr().out
    assert "recipe has changed since: A-seed1; `sdm table` still reads them" in printed
    assert collected(fake_runs / "out") == [("A", 0), ("B", 0), ("B", 1)]


def test_what_was_trained_without_a_test_is_only_tested(fake_runs: Path) -> None:
    path = str(write_sweep(fake_runs))
    runner.run_sweep(path, "tiny", "out", only="A-seed0", test=False)
    assert calls(fake_runs) == ["fit A-seed0 -"]
    runner.run_sweep(path, "tiny", "out", only="A-seed0")
    assert calls(fake_runs) == ["test A-seed0 -"]


def test_another_checkpoint_or_config_is_another_recipe(tmp_path: Path) -> None:
    checkpoint, config = tmp_path / "last.ckpt", tmp_path / "extra.yaml"
    checkpoint.write_bytes(b"1")
    config.write_text("a: 1")
    cell = Cell("A", ("test", f"--ckpt_path={checkpoint}"))
    found = [cell.fingerprint(), cell.fingerprint([f"--config={config}"])]
    assert cell.fingerprint() == found[0]
    config.write_text("# A comment\na:  1\n")
    assert cell.fingerprint([f"--config={config}"]) == found[1]
    config.write_text("a: 2")
    found.append(cell.fingerprint([f"--config={config}"]))
    checkpoint.write_bytes(b"12")
    found.append(cell.fingerprint())
    config.write_text("a: [")  # as an editor may leave it while a sweep runs
    found.append(cell.fingerprint([f"--config={config}"]))
    assert len(set(found)) == 5


def test_a_run_that_was_asked_to_stop_is_taken_up_again(
    fake_runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_sweep(fake_runs))
    monkeypatch.setenv("FAIL", "A-seed0")
    monkeypatch.setenv("CODE", "75")
    with pytest.raises(SystemExit) as end:
        runner.run_sweep(path, "tiny", "out", only="A-seed0")
    assert end.value.code == 75
    state = json.loads((fake_runs / "out" / "A-seed0" / "cell.json").read_text())
    assert state["status"] == "preempted"
    said = "four: 0 done, 0 skipped, 0 failed, 1 stopped: call it again to continue\n"
    assert said in capsys.readouterr().out
    monkeypatch.delenv("FAIL")
    runner.run_sweep(path, "tiny", "out", only="A-seed0")
    assert calls(fake_runs)[-2:] == ["fit A-seed0 -", "test A-seed0 -"]


def test_a_signal_after_the_last_batch_leaves_the_test_for_the_next_call(
    fake_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_sweep(fake_runs))
    monkeypatch.setenv("STOP", "1")
    with pytest.raises(SystemExit) as end:
        runner.run_sweep(path, "tiny", "out", only="A-seed0")
    assert end.value.code == 75
    state = json.loads((fake_runs / "out" / "A-seed0" / "cell.json").read_text())
    assert (state["status"], state["stages"]) == ("preempted", ["fit"])
    monkeypatch.delenv("STOP")
    runner.run_sweep(path, "tiny", "out", only="A-seed0")
    assert calls(fake_runs) == ["fit A-seed0 -", "test A-seed0 -"]


def test_devices_are_shared_out(fake_runs: Path) -> None:
    runner.run_sweep(str(write_sweep(fake_runs)), "tiny", "out", devices="2,5")
    made = [call.split() for call in calls(fake_runs)]
    assert {device for _, _, device in made} == {"2", "5"}
    for cell in {name for _, name, _ in made}:
        assert len({device for _, name, device in made if name == cell}) == 1


def test_runs_have_the_users_wandb_tags(fake_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_TAGS", "mine,small")
    runner.run_sweep(str(write_sweep(fake_runs)), "tiny", "out", only="A-seed0")
    assert (fake_runs / "tags.txt").read_text() == "mine,small"


def test_dry_run_and_unknown_cells(fake_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_sweep(fake_runs))
    runner.run_sweep(path, "tiny", "out", only="A-seed1", dry_run=True)
    fit, test = capsys.readouterr().out.splitlines()
    assert fit == (
        "sdm fit --seed_everything=1 --config=rows/A.yaml --scale=tiny "
        "--runs_dir=out --name=A-seed1 --ckpt_path=auto"
    )
    assert test.endswith("--runs_dir=out --name=A-seed1 --ckpt_path=last")
    assert calls(fake_runs) == []
    for only in ("C", "A-seed0,C", "C,"):
        with pytest.raises(InputError, match=r"no cell's name contains 'C'; .* A-seed0 to B-seed1"):
            runner.run_sweep(path, "tiny", "out", only=only)
    assert [c.name for c in runner.select(read_sweep(path).cells(), "A-seed1,")] == ["A-seed1"]
    with pytest.raises(InputError, match="no cell's name contains ''"):
        runner.run_sweep(path, "tiny", "out", only="")


def test_missing_configs_are_named_before_anything_starts(
    fake_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"config": {"values": ["rows/A.yaml", "rows/C.yaml"]}}
    path = str(write_sweep(fake_runs, parameters=parameters))
    for options in ({}, {"dry_run": True}, {"slurm": "array.sh"}):
        with pytest.raises(InputError, match=r"rows/C.yaml: no such file, but .* at scale tiny$"):
            runner.run_sweep(path, "tiny", "out", **options)
    with pytest.raises(InputError, match=r"extra: config file none.yaml: no such file"):
        runner.run_sweep(path, "tiny", "out", only="A", extra=["--config", "none.yaml"])
    assert not (fake_runs / "out").exists()
    assert not (fake_runs / "array.sh").exists()
    for name, scales in (("table1", "cpu, paper, photos, small"), ("tableD3", "paper, small")):
        with pytest.raises(InputError, match=rf"scale/x.yaml: no such file.* the scales {scales}"):
            runner.run_sweep(f"experiments/sweeps/{name}.yaml", "x", "out")


def test_missing_data_are_named_before_anything_starts(fake_runs: Path) -> None:
    path = str(write_sweep(fake_runs))
    row, here = fake_runs / "rows" / "A.yaml", fake_runs / "here"
    here.mkdir()

    def write(**data: Any) -> None:
        row.write_text(yaml.safe_dump({"data": data}))

    for data in (
        {"train": "gone"}, {"train": "here", "val": ["here", "gone"]}, {"test": "gone"},
        {"train": f"{here}/{{0..1}}.tar"},
    ):  # fmt: skip
        write(**data)
        with pytest.raises(InputError, match=r"no such data, but data\.\w+ of cell A-seed0"):
            runner.run_sweep(path, "tiny", "out")
    assert not (fake_runs / "out").exists()
    # Neither addresses nor what no cell is going to read.
    write(train="https://a.example/{0..1}.tar", val=None, test=str(here), predict="gone")
    runner.run_sweep(path, "tiny", "out", only="A-seed0")
    here.rmdir()
    runner.run_sweep(path, "tiny", "out", only="A-seed0")
    assert calls(fake_runs) == ["fit A-seed0 -", "test A-seed0 -"]
    runner.run_sweep(path, "tiny", "out", only="A-seed0", dry_run=True)


def test_slurm_array_requeues_by_exit_status(
    fake_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script with stand-ins for ``sdm`` and ``scontrol``."""
    extra = ['--data.train_masks={"mat256_large": 1}']
    path = str(write_sweep(fake_runs))
    runner.run_sweep(path, "tiny", "out", slurm="array.sh", test=False, extra=extra)
    words = ["sdm", "sweep", "sweep.yaml", "--scale", "tiny", "--output", "out", "--test", "false"]
    command = shlex.join([*words, "--extra", json.dumps(extra)])
    printed = capsys.readouterr().out
    assert "4 cells; start them with: sbatch array.sh" in printed
    assert "sbatch --time=24:00:00 --gpus=8 array.sh" in printed
    assert "then:" not in printed, "its rows are of no table"
    text = (fake_runs / "array.sh").read_text()
    assert command in text.replace(path, "sweep.yaml")
    assert "#SBATCH --array=0-3" in text
    assert "#SBATCH --gpus=1" in text
    assert "#SBATCH --open-mode=append" in text
    for name, body in {
        "sdm": 'echo "sdm $@" >> calls.txt; exit $CODE',
        "scontrol": 'echo "scontrol $@" >> calls.txt',
    }.items():
        (fake_runs / name).write_text(f"#!/bin/sh\n{body}\n")
        (fake_runs / name).chmod(0o755)
    for code in (0, 1, 75):
        environment = {
            **os.environ,
            "PATH": f"{fake_runs}:{os.environ['PATH']}",
            "CODE": str(code),
            "SLURM_ARRAY_TASK_ID": "2",
            "SLURM_ARRAY_JOB_ID": "17",
        }
        assert subprocess.run(["bash", "array.sh"], env=environment).returncode == code
        expected = [f"{shlex.join(words)} --extra {json.dumps(extra)} --only A-seed1"]
        expected += ["scontrol requeue 17_2"] if code == 75 else []
        found = [call.replace(f"{fake_runs}/", "") for call in calls(fake_runs)]
        assert found == expected


def test_slurm_array_has_the_gpus_of_its_cells_and_names_the_table(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, extra = "experiments/sweeps/table2A.yaml", ["--config=configs/trainer/8gpu.yaml"]
    runner.run_sweep(path, "paper", slurm="array.sh", extra=extra)
    assert "#SBATCH --gpus=8\n" in Path("array.sh").read_text()
    assert "then: sdm table table2 --scale paper\n" in capsys.readouterr().out
    runner.run_sweep(path, "paper", "out", slurm="array.sh")
    assert """table2 --scale paper --results '["out"]'\n""" in capsys.readouterr().out
    for option in ({"workers": 2}, {"devices": "0"}):
        with pytest.raises(InputError, match=f"{next(iter(option))}: only for cells that run here"):
            runner.run_sweep(path, "paper", slurm="other.sh", **option)
    nodes = ["--config=configs/trainer/multinode.yaml"]
    with pytest.raises(InputError, match="num_nodes is 4, but an array task has one node"):
        runner.run_sweep(path, "paper", slurm="other.sh", extra=nodes)
    assert not Path("other.sh").exists()


def test_sweeps_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what belongs to the scale, as in the checkout."""
    monkeypatch.chdir(ROOT)
    here = read_sweep("experiments/sweeps/table1.yaml").cells("small")
    fingerprint = here[-1].fingerprint()
    monkeypatch.chdir(tmp_path)
    there = read_sweep("experiments/sweeps/table1.yaml").cells("small")
    assert "--config=experiments/table1/G.small.yaml" in there[-1].argv
    assert [c.argv for c in there] == [c.argv for c in here]
    assert there[-1].fingerprint() == fingerprint
