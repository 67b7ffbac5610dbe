"""The command line, through the same ``main(args)`` that a shell calls."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from sdm_lightning.cli.errors import explain, final_message, nearest
from sdm_lightning.cli.main import COMMANDS, TRAINER_COMMANDS, main, overview, spell_out
from sdm_lightning.errors import InputError

OWN_PARTS = """
from sdm_lightning.losses import PerceptualLoss

class NoDistance(PerceptualLoss):
    name = "own"
    def encode(self, images): return [images]

class Scaled(PerceptualLoss):
    name = "own"
    def __init__(self, scale: float): {}["abc"]
    def encode(self, images): return [images]
    def distance(self, prediction, target): return target[0]

class Power:
    def __init__(self, exponent: float = 5.0) -> None: self.exponent = exponent
    def __call__(self, progress: float) -> float: return progress**self.exponent
"""


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs words that must fail; gives the one line on stderr."""

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, words)])
        assert stopped.value.code == 2
        lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert len(lines) == 1, lines
        return lines[0].removeprefix("error: ")

    return run


class TestVerbs:
    def test_help_lists_every_command_with_a_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(["-h"])
        shown = capsys.readouterr().out
        for command in [*TRAINER_COMMANDS, *COMMANDS]:
            (line,) = [x for x in shown.splitlines() if x.startswith(f"  {command} ")]
            assert len(line.split()) > 3

    def test_no_words_is_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        main([])
        assert capsys.readouterr().out.strip() == overview().strip()

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_has_help(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        main([command, "-h"])
        assert f"usage: sdm {command}" in capsys.readouterr().out

    def test_help_does_not_import_what_the_command_does_not_use(self, tmp_path: Path) -> None:
        code = (
            "import sys\nfrom sdm_lightning.cli.main import main\n"
            "for command in ('shards', 'masks'):\n"
            "    try: main([command, '-h'])\n"
            "    except SystemExit: pass\n"
            "    assert not {'lightning', 'wandb', 'torchmetrics'} & set(sys.modules), command"
        )
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},  # a kept text imports nothing
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def test_unknown_command(self, refused: Callable[..., str]) -> None:
        assert refused("fti") == "unknown command 'fti'; did you mean 'fit'?"
        assert refused("--config", "a.yaml").startswith("'--config' comes before the command")

    def test_switch_without_value(self) -> None:
        def command(source: str, overwrite: bool = False, count: int = 1) -> None: ...

        assert spell_out(command, ["a", "--overwrite"]) == ["a", "--overwrite=true"]
        assert spell_out(command, ["--overwrite", "--count", "2"]) == [
            "--overwrite=true", "--count", "2",
        ]  # fmt: skip
        assert spell_out(command, ["--overwrite", "false"]) == ["--overwrite", "false"]

    def test_lists_are_given_by_repetition(self) -> None:
        def command(source: str, box: list[str] | None = None) -> None: ...

        assert spell_out(command, ["a", "--box", "--box=3", "--box", "4"]) == [
            "a", "--box+", "--box=3", "--box+", "4",
        ]  # fmt: skip
        assert spell_out(command, ["a", "--box=1", "--box", "2"]) == [
            "a",
            "--box+=1",
            "--box+",
            "2",
        ]

    def test_bare_words_beyond_the_required_ones(self) -> None:
        def command(image: str, mask: str = "", seed: int = 0) -> None: ...

        for words in (["a", "b"], ["--seed", "1", "a", "b"], ["a", "--seed=1", "b", "c"]):
            changed = [f"--mask={word}" if word == "b" else word for word in words]
            assert spell_out(command, words, ("mask",)) == changed
            assert spell_out(command, words) == words
        for words in (["a", "b", "--mask", "alpha"], ["--mask=alpha", "a", "b"]):
            with pytest.raises(InputError, match="'b' and --mask: give one of them"):
                spell_out(command, words, ("mask",))

    def test_a_file_whose_name_begins_with_a_minus(self, refused: Callable[..., str]) -> None:
        def command(image: str, output: str = "", at: float = 0.0) -> None: ...

        said = refused("inpaint", "-p.png", "--box", "1,1,2,2")
        assert said == "'-p.png' looks like an option; write ./-p.png"
        with pytest.raises(InputError, match=r"'-q\.png' looks like an option"):
            spell_out(command, ["p.png", "--output", "-q.png"])
        for words in (["a", "--at", "-.5"], ["a", "-x"], ["a", "-x=b.png"], ["./-p.png"]):
            assert spell_out(command, words) == words


class TestOneLineErrors:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--model.num_iteration 3",
             "unknown key 'model.num_iteration'; "
             "did you mean 'model.diffusion.init_args.num_iterations'?"),
            ("--model.generator.init_args.base_chanels 3",
             "unknown key 'model.generator.init_args.base_chanels'; "
             "did you mean 'model.generator.init_args.base_channels'?"),
            ("--model.generator sdm_lightning.models.Generatr",
             "model.generator: class_path 'sdm_lightning.models.Generatr' does not exist; "
             "did you mean 'sdm_lightning.models.Generator'?"),
            ("--model.perceptual nope.Loss",
             "model.perceptual: class_path 'nope.Loss': No module named 'nope'"),
            ("--model.test_iterations many",
             "model.test_iterations: expected int, got 'many'"),
            ("--model.average.ramp_up fast",
             "model.average.ramp_up: expected float or null, got 'fast'"),
            ("--model.diffusion.uncertainty_scale log",
             "model.diffusion.init_args.uncertainty_scale: expected minmax or clamp, got 'log'"),
            ("--model.diffusion.num_iterations 0",
             "model.diffusion (SpatialDiffusion): num_iterations is 0; it must be at least 1"),
            ("--model.generator.latent_dim 0",
             "model.generator (Generator): latent_dim is 0; it must be at least 1"),
            ("--config absent.yaml", "config file 'absent.yaml' does not exist"),
            ("--name a/b",
             "name 'a/b': give the name of one folder; --runs_dir says where it is"),
            ("stray", "unexpected word 'stray'; options start with --"),
            ("--model.discriminator.init_args.resolution 8",
             "key 'model.discriminator.init_args.resolution' is linked to 'data.resolution'; "
             "set that instead"),
            ("--ckpt_path absent.ckpt",
             "checkpoint 'absent.ckpt' does not exist (--ckpt_path FILE, last or auto; "
             "--start_from WEIGHTS)"),
            ("--ckpt_path last",
             "runs/sdm/checkpoints holds no checkpoint; give one with --ckpt_path FILE, "
             "or the run's --name"),
            ("--seed_everything -1",
             "seed_everything is -1; choose a number from 0 to 4294967295"),
            ("--seed_everything true", "seed_everything: expected int, got 'True'"),
            ("--trainer.gradient_clip_val 1",
             "trainer.gradient_clip_val is not for GANs; use model.gradient_clip"),
            ("--trainer.strategy ddp_spawn_find_unused_parameters_true",
             "trainer.strategy: processes that are forked or spawned cannot run sdm; use ddp, with "
             "trainer.devices"),
            ("--trainer.strategy lightning.pytorch.strategies.DDPStrategy "
             "--trainer.strategy.start_method fork",
             "trainer.strategy: processes that are forked or spawned cannot run sdm; use ddp, with "
             "trainer.devices"),
        ],
    )  # fmt: skip
    def test_flag(
        self, words: str, message: str, micro: Path, workdir: Path, refused: Callable[..., str]
    ) -> None:
        assert refused("fit", "--config", str(micro), *words.split()) == message

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("model: {num_iteration: 3}",
             "unknown key 'model.num_iteration' in my.yaml; "
             "did you mean 'model.diffusion.init_args.num_iterations'?"),
            ("modle: {seed: 1}", "unknown key 'modle.seed' in my.yaml; did you mean 'model.seed'?"),
            ("model: {diffusion: {init_args: {schedule: {class_path: "
             "sdm_lightning.diffusion.CubicSchedul}}}}",
             "model.diffusion.init_args.schedule: class_path "
             "'sdm_lightning.diffusion.CubicSchedul' does not exist; "
             "did you mean 'sdm_lightning.diffusion.CubicSchedule'?"),
            ("trainer: {callbacks: [{class_path: torch.nn.Linear}]}",
             "trainer.callbacks: Import path torch.nn.Linear does not correspond to a subclass of "
             "Callback"),
            ("model.seed: 3",
             "key 'model.seed' in my.yaml is linked to 'seed_everything'; set that instead"),
            ("model: {discriminator.init_args: {resolution: 3}}",
             "key 'model.discriminator.init_args.resolution' in my.yaml is linked to "),
            ("a: [1", "config file 'my.yaml': not YAML: line 2: "),
            ("just words", "config file 'my.yaml' holds no keys"),
            ("trainer: {precision: 16-mixed}", "trainer.precision 16-mixed is refused: "),
        ],
    )  # fmt: skip
    def test_config_file(
        self, content: str, message: str, micro: Path, workdir: Path, refused: Callable[..., str]
    ) -> None:
        (workdir / "my.yaml").write_text(content + "\n")
        found = refused("fit", "--config", str(micro), "--config", "my.yaml")
        assert found.startswith(message)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--model.perceptual own_parts.NoDistance",
             "model.perceptual: own_parts.NoDistance lacks the method distance"),
            ("--model.perceptual own_parts.Scaled", "missing: model.perceptual.init_args.scale"),
            ("--model.perceptual own_parts.Scaled --model.perceptual.scale 0",
             "model.perceptual (Scaled): KeyError: 'abc'"),
            ("--model.perceptual own_parts.py",
             "model.perceptual: own_parts.py is a Python file; write module and class: "
             "own_parts.CLASS"),
            ("--model.diffusion.schedule own_parts.Power "
             "--model.diffusion.schedule.exponent abc",
             "model.diffusion.init_args.schedule.init_args.exponent: expected float, got 'abc'"),
        ],
    )  # fmt: skip
    def test_a_part_of_ones_own(
        self,
        words: str,
        message: str,
        micro: Path,
        workdir: Path,
        refused: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.syspath_prepend(workdir)
        monkeypatch.delitem(sys.modules, "own_parts", raising=False)
        (workdir / "own_parts.py").write_text(OWN_PARTS)
        assert refused("fit", "--config", str(micro), *words.split()) == message

    def test_required(self, workdir: Path, refused: Callable[..., str]) -> None:
        assert refused("fit", "--trainer.max_steps", "1") == (
            "missing: model.generator, model.discriminator; a --config FILE can hold them"
        )

    def test_untrained_model_is_not_scored(
        self, micro: Path, workdir: Path, refused: Callable[..., str]
    ) -> None:
        assert "holds no checkpoint" in refused("test", "--config", str(micro))

    def test_other_commands(self, workdir: Path, refused: Callable[..., str]) -> None:
        assert refused("shards", "a", "b", "--shard_sise", "3") == (
            "unknown key 'shard_sise'; did you mean 'shard_size'?"
        )
        assert refused("shards", "a", "b", "--seed", "x") == "seed: expected int, got 'x'"
        assert refused("shards", "absent", "out").startswith("absent: does not exist")
        assert refused("shards").startswith("missing: source")
        assert refused("inpaint", "a.png", "b.png", "c.png") == (
            "unexpected word 'c.png'; options start with --, and several files are given as their "
            "folder"
        )
        assert refused("shards", "--source", "a") == (
            "unexpected option --source; write its value without it"
        )

    def test_debug_lets_the_exception_through(
        self, monkeypatch: pytest.MonkeyPatch, workdir: Path
    ) -> None:
        monkeypatch.setenv("SDM_DEBUG", "1")
        with pytest.raises(InputError, match="unknown command"):
            main(["fti"])

    def test_message_from_a_data_worker(self) -> None:
        message = (
            "Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most recent "
            'call last):\n  File "x.py", line 1\nsdm_lightning.errors.InputError: a.tar: cut off\n'
        )
        assert final_message(InputError(message)) == "a.tar: cut off"
        assert final_message(InputError("plain\nmessage")) == "plain message"

    def test_nearest(self) -> None:
        assert nearest("fti", ["fit", "test"]) == "fit"
        assert nearest("zzz", ["fit", "test"]) is None
        assert nearest("model.sed", ["model.seed", "data.seed"]) == "model.seed"

    def test_what_no_rule_knows_stays_readable(self) -> None:
        assert explain("something\n  new") == "something"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("work")
    words = ["--config", str(Path(__file__).parents[1] / "conf" / "micro.yaml")]
    words += [f"--data.{split}={tiny_shards}" for split in ("train", "val", "test", "predict")]
    words += [f"--runs_dir={folder}/runs", "--name=a"]
    main(["fit", *words])
    return folder / "runs" / "a", words


class TestRun:
    """One tiny run through fit, test and predict."""

    def test_directory(self, run: tuple[Path, list[str]]) -> None:
        folder, _ = run
        found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        assert found == {
            "config.yaml", "metrics.csv", "samples/000000008.png", "checkpoints/last.ckpt",
            "checkpoints/000000004.ckpt", "checkpoints/000000008.ckpt",
            ".lock",
        }  # fmt: skip

    def test_saved_config_builds_the_same_run(self, run: tuple[Path, list[str]]) -> None:
        config = yaml.safe_load((run[0] / "config.yaml").read_text())
        assert config["budget"]["max_images"] == 8
        assert config["data"]["resolution"] == 16
        assert "ckpt_path" not in config
        assert "resolution" not in config["model"]["discriminator"]["init_args"]

    def test_checkpoint_loads_safely(self, run: tuple[Path, list[str]]) -> None:
        checkpoint = torch.load(run[0] / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["images_seen"] == 8
        assert checkpoint["global_step"] == 4

    def test_second_fit_is_refused(
        self, run: tuple[Path, list[str]], refused: Callable[..., str]
    ) -> None:
        assert refused("fit", *run[1]).endswith(
            "already holds a run; continue it with --ckpt_path last, or choose another --name"
        )

    def test_flags_win_over_the_checkpoint(
        self, run: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sdm_lightning.cli.trainer import SDMCommandLine

        seen = []
        monkeypatch.setattr(SDMCommandLine, "_run_subcommand", lambda s, _: seen.append(s.model))
        for checkpoint in ([], [f"--ckpt_path={run[0]}/checkpoints/last.ckpt"]):
            main(["test", *run[1], *checkpoint, "--model.test_iterations=7"])
        assert [model.test_iterations for model in seen] == [7, 7]

    def test_test_writes_one_result_line(self, run: tuple[Path, list[str]]) -> None:
        folder, words = run
        main(["test", *words])
        lines = (folder / "results.jsonl").read_text().splitlines()
        assert len(lines) == 1
        assert json.loads(lines[0])["num_images"] == 12
        assert (folder / "config-test.yaml").is_file()

    def test_predict_writes_every_image(self, run: tuple[Path, list[str]]) -> None:
        folder, words = run
        main(["predict", *words])
        assert len(list((folder / "predictions").rglob("*.png"))) == 12


def test_a_closed_stdout_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    main(["-h"])


@pytest.mark.parametrize(
    ("errors", "printed"), [("strict", b"\\u6771.png"), ("surrogateescape", None)]
)
def test_a_name_that_the_terminal_cannot_show_is_printed(
    monkeypatch: pytest.MonkeyPatch, errors: str, printed: bytes | None
) -> None:
    shown = io.BytesIO()
    stdout = io.TextIOWrapper(shown, "cp1252", errors)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setitem(main.__globals__, "overview", lambda: "東.png")
    if printed is None:  # what somebody has chosen stays
        with pytest.raises(UnicodeEncodeError):
            main(["-h"])
    else:
        main(["-h"])
        assert shown.getvalue().strip() == printed


def test_config_files_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("width: 3\nname: é東", encoding="utf-8")
    (tmp_path / "whole.yaml").write_text("part: part.yaml\nother: ü", encoding="utf-8")
    code = (
        "from jsonargparse import ArgumentParser\n"
        "from sdm_lightning.cli.errors import parse_clearly\n"
        "class Part:\n"
        "    def __init__(self, width: int, name: str): ...\n"
        "parser = ArgumentParser(exit_on_error=False)\n"
        "parser.add_argument('--config', action='config')\n"
        "parser.add_class_arguments(Part, 'part', sub_configs=True)\n"
        "parser.add_argument('--other')\n"
        f"found = parse_clearly(parser, ['--config', {str(tmp_path / 'whole.yaml')!r}])\n"
        "print(ascii([found.part.name, found.other]))"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **plain}, check=True, capture_output=True
    )
    assert done.stdout.split() == [rb"['\xe9\u6771',", rb"'\xfc']"]


def test_a_reader_that_stops_is_no_error() -> None:
    """``sdm table ... | head``: no traceback where a pipe is closed."""
    code = "import sys; from sdm_lightning.cli.main import main; main(['-h'])"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run([sys.executable, "-c", code], stdout=closed, stderr=subprocess.PIPE)
    assert done.returncode == 141
    assert done.stderr == b""
