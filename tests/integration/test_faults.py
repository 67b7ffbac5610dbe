"""Faults around a fit: one line each, an exit status that is not 0, and nothing lost."""

import multiprocessing
import os
import re
import signal

import pytest
import torch

from sdm_lightning.cli.faults import explain_fault
from sdm_lightning.cli.run_directory import only_fit
from sdm_lightning.cli.trainer import SDMCommandLine
from sdm_lightning.data.shards.reading import ShardReader
from sdm_lightning.data.shards.remote import Unavailable
from sdm_lightning.errors import InputError
from sdm_lightning.inference.checkpoints import newest_checkpoint
from sdm_lightning.training import SDMModule, loggers
from sdm_lightning.training.checkpointing import AtomicCheckpointIO


def status_and_line(call, capsys):
    """Exit status and the last line on stderr."""
    with pytest.raises(SystemExit) as caught:
        call()
    lines = capsys.readouterr().err.strip().splitlines()
    return caught.value.code, lines[-1] if lines else ""


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").glob("[!.]*"))


def at(monkeypatch, owner, name, action, call=1):
    """Run ``action`` before the ``call``-th call of a method."""
    original, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            action()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)
    return calls


def kill_self(number):
    return lambda: os.kill(os.getpid(), number)


def test_out_of_gpu_memory(sdm, monkeypatch, capsys):
    def full():
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"
        )

    at(monkeypatch, SDMModule, "_generator_phase", full, call=2)
    status, line = status_and_line(lambda: sdm("fit"), capsys)
    assert status == 1
    assert line.startswith("error: out of GPU memory (tried to allocate 2.00 GiB): lower data.b")


def test_disk_full_in_a_checkpoint(sdm, room_for, capsys):
    run = sdm("fit", "--budget.max_images=4")
    before, size = checkpoints(run), (run / "checkpoints" / "last.ckpt").stat().st_size
    with room_for(size // 2):
        status, line = status_and_line(lambda: sdm("fit", "--ckpt_path=last"), capsys)
    assert status == 1
    assert line.startswith(f"error: {run / 'checkpoints'}/")
    assert "File too large; earlier files are intact" in line
    assert checkpoints(run) == before
    assert not list((run / "checkpoints").glob("*.partial"))
    assert newest_checkpoint(run) is not None
    sdm("fit", "--ckpt_path=last")  # with room, it goes on


def test_disk_full_in_the_metrics(sdm, monkeypatch, capsys):
    run = sdm("fit", "--budget.max_images=4")
    before, kept = (run / "metrics.csv").read_bytes(), checkpoints(run)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(loggers, "append_lines", full)
    monkeypatch.setattr(loggers, "write_atomically", full)
    status, line = status_and_line(lambda: sdm("fit", "--ckpt_path=last"), capsys)
    assert status == 1
    assert line.startswith("error: runs/run/metrics.csv: No space left on device; earlier files")
    assert (run / "metrics.csv").read_bytes() == before
    assert checkpoints(run) == kept


def test_a_data_worker_killed(sdm, monkeypatch, capsys):
    def kill_workers():
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    at(monkeypatch, SDMModule, "_generator_phase", kill_workers, call=2)
    status, line = status_and_line(
        lambda: sdm("fit", "--data.num_workers=1", "--budget.max_images=400"), capsys
    )
    assert status == 1
    assert line.startswith("error: a data worker died (DataLoader worker (pid")


@pytest.mark.parametrize("kind", [InputError, Unavailable])
def test_bad_input_in_a_data_worker_is_the_line_of_the_main_process(sdm, monkeypatch, capsys, kind):
    def refuse(reader, shard):
        raise kind(f"{shard.url}: no good")

    monkeypatch.setattr(ShardReader, "read", refuse)
    without, within = (
        status_and_line(lambda n=number: sdm("fit", f"--data.num_workers={n}"), capsys)
        for number in (0, 1)
    )
    assert without == within
    assert without[0] == 2
    assert re.fullmatch(r"error: \S+\.tar: no good", without[1])


def hold(directory, held, release):
    with only_fit(directory):
        held.set()
        release.wait(60)


def test_a_second_run_of_one_name_is_refused(sdm, tmp_path, capsys):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "runs" / "run", held, release))
    other.start()
    assert held.wait(60)
    status, line = status_and_line(lambda: sdm("fit"), capsys)
    assert status == 2
    assert f"is being trained by another process (process {other.pid} on " in line
    assert not (tmp_path / "runs" / "run" / "checkpoints").exists()
    other.kill()  # however it ends, the lock ends with it
    other.join()
    sdm("fit", "--budget.max_images=2")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)]
)
def test_a_signal_in_training(sdm, monkeypatch, capsys, tmp_path, number, status):
    before = signal.getsignal(signal.SIGINT)
    at(monkeypatch, SDMModule, "_generator_phase", kill_self(number), call=3)
    assert status_and_line(lambda: sdm("fit"), capsys)[0] == status
    saved = torch.load(tmp_path / "runs/run/checkpoints/preempted.ckpt", weights_only=True)
    assert saved["images_seen"] == 6  # the batch was finished
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ctrl_c_twice(sdm, monkeypatch, capsys, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at(monkeypatch, SDMModule, "_generator_phase", twice, call=3)
    status, line = status_and_line(lambda: sdm("fit"), capsys)
    assert (status, line) == (130, "interrupted")
    assert checkpoints(tmp_path / "runs" / "run") == ["000000004.ckpt"]


def test_sigterm_during_validation(sdm, monkeypatch, capsys, tmp_path):
    """It is cut short, gives no score, and the run saves at the next batch."""
    steps = at(monkeypatch, SDMModule, "validation_step", kill_self(signal.SIGTERM))
    monitor = "--checkpoint.monitor=val/psnr"
    status, _ = status_and_line(
        lambda: sdm("fit", monitor, "--trainer.val_check_interval=2"), capsys
    )
    assert status == 75
    assert len(steps) == 1  # of three
    run = tmp_path / "runs" / "run"
    assert checkpoints(run) == ["000000004.ckpt", "preempted.ckpt"]
    assert torch.load(run / "checkpoints/preempted.ckpt", weights_only=True)["images_seen"] == 6
    assert "val/psnr" not in (run / "metrics.csv").read_text()


EACH_EPOCH = ("--trainer.limit_train_batches=2", "--trainer.check_val_every_n_epoch=1",
              "--trainer.val_check_interval=1.0")  # fmt: skip
FAR_FROM_ITS_END = ("--checkpoint.every_n_batches=100", "--budget.max_images=100")


@pytest.mark.parametrize("interval", [("--trainer.val_check_interval=1",), EACH_EPOCH])
@pytest.mark.parametrize("call", [1, 4])
def test_early_stopping_does_not_see_a_validation_cut_short(
    sdm, monkeypatch, tmp_path, call, interval
):
    """Neither in the first validation, which leaves it no score, nor in a later one."""
    at(monkeypatch, SDMModule, "validation_step", kill_self(signal.SIGTERM), call=call)
    stopping = (
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/psnr",
        "--trainer.callbacks.mode=max",
        "--budget.max_images=100",
        *interval,
    )
    with pytest.raises(SystemExit) as end:
        sdm("fit", *stopping)
    assert end.value.code == 75
    saved = torch.load(tmp_path / "runs/run/checkpoints/preempted.ckpt", weights_only=True)
    (state,) = (s for name, s in saved["callbacks"].items() if name.startswith("EarlyStopping"))
    assert state["wait_count"] == 0
    assert state["best_score"].isfinite() == (call > 1)


@pytest.mark.parametrize("interval", [("--trainer.val_check_interval=2",), EACH_EPOCH])
def test_a_run_that_stops_early_keeps_its_last_state(sdm, interval):
    """Checkpoints are far apart."""
    stopping = (
        *FAR_FROM_ITS_END,
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/psnr",
        "--trainer.callbacks.mode=min",  # so that nothing is ever better than the first
        "--trainer.callbacks.min_delta=100",
        "--trainer.callbacks.patience=1",
        *interval,
    )
    run = sdm("fit", *stopping)
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["images_seen"] == 8


def test_a_run_of_some_epochs_keeps_its_last_state(sdm):
    epochs = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=3")
    run = sdm("fit", *FAR_FROM_ITS_END, *epochs)
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["images_seen"] == 6


def test_a_validation_interval_longer_than_an_epoch(sdm, capsys):
    epochs = ("--trainer.limit_train_batches=2", "--trainer.check_val_every_n_epoch=1")
    status, line = status_and_line(lambda: sdm("fit", *epochs), capsys)
    assert status == 2
    assert line.startswith("error: `val_check_interval` (4) must be less than or equal to")


def test_a_start_that_left_no_checkpoint_gives_way_to_the_next(sdm, monkeypatch, capsys):
    """The config beside the checkpoints is the one that they were trained with."""

    def fails():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        at(patch, SDMModule, "_generator_phase", fails, call=2)
        status_and_line(lambda: sdm("fit", "--model.test_iterations=7"), capsys)
    run = sdm("fit")
    assert "test_iterations: 2" in (run / "config.yaml").read_text()
    assert "test_iterations: 7" in (run / "config-before1.yaml").read_text()
    assert (run / "metrics-before1.csv").is_file()
    rows = (run / "metrics.csv").read_text().splitlines()
    sdm("fit", "--ckpt_path=last", "--budget.max_images=12")
    assert (run / "metrics.csv").read_text().splitlines()[: len(rows)] == rows


def test_sigterm_during_a_checkpoint(sdm, monkeypatch, capsys, tmp_path):
    original = torch.save

    def save(content, file):
        file.write(b"half of it")
        os.kill(os.getpid(), signal.SIGTERM)
        file.seek(0)
        monkeypatch.setattr(torch, "save", original)
        original(content, file)

    monkeypatch.setattr(torch, "save", save)
    assert status_and_line(lambda: sdm("fit"), capsys)[0] == 75
    run = tmp_path / "runs" / "run"
    assert checkpoints(run) == ["000000004.ckpt", "preempted.ckpt"]
    for name, images in (("000000004.ckpt", 4), ("preempted.ckpt", 6)):
        saved = AtomicCheckpointIO().load_checkpoint(run / "checkpoints" / name)
        assert saved["images_seen"] == images


def test_sigterm_during_start_up(sdm, monkeypatch, capsys, tmp_path):
    at(monkeypatch, SDMModule, "setup", kill_self(signal.SIGTERM))
    status, line = status_and_line(lambda: sdm("fit"), capsys)
    assert (status, line) == (75, "stopped by SIGTERM outside the training loop; nothing to save")
    assert not (tmp_path / "runs" / "run" / "checkpoints").exists()


def test_wandb_out_of_reach_or_token_wrong(sdm, monkeypatch, capsys):
    import wandb

    def unreachable(*args, **kwargs):
        raise wandb.errors.CommError("Run initialization has timed out after 90.0 sec")

    # Only now: the command line takes the logger's arguments from the signature of wandb.init.
    at(monkeypatch, SDMCommandLine, "_run_subcommand",
       lambda: monkeypatch.setattr(wandb, "init", unreachable))  # fmt: skip
    status, line = status_and_line(
        lambda: sdm("fit", "--config", "configs/logger/wandb_online.yaml"), capsys
    )
    assert status == 1
    assert line.startswith("error: W&B: Run initialization has timed out")
    assert "configs/logger/wandb.yaml" in line
    line = explain_fault(wandb.errors.AuthenticationError("API key is invalid"))
    assert "API key is invalid; check WANDB_API_KEY" in line


def test_faults_that_are_not_known_keep_their_traceback():
    assert explain_fault(RuntimeError("shape mismatch")) is None
    assert explain_fault(OSError(5, "Input/output error", "/x")) is None
    long = explain_fault(OSError(36, "File name too long", "/xxx"))
    assert long == "/xxx: the name is too long for this disk"
    assert explain_fault(OSError(13, "Permission denied", "/x")) == "/x: permission denied"
    handled = KeyError("a bug")
    handled.__context__ = FileNotFoundError(2, "No such file or directory", "/x")
    assert explain_fault(handled) is None
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]")
    assert "another process of this training has ended" in explain_fault(lost)
    assert "/x: No space left" in explain_fault(OSError(28, "No space left on device", "/x"))
