"""One of several training processes is killed: the others end promptly, and not with status 0."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONF = Path(__file__).parents[1] / "conf"


def children(pid):
    """Process numbers of the children that a process started, from any of its threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("victim", ["rank 1", "rank 0"])
def test_the_others_end_when_one_is_killed(shards, tmp_path, victim):
    data = [f"--data.{split}={shards / 'train'}" for split in ("train", "val")]
    command = [
        sys.executable, "-m", "sdm_lightning", "fit", "--config", str(CONF / "micro.yaml"), *data,
        "--trainer.devices=2", "--budget.max_images=1000000", "--trainer.limit_val_batches=0",
    ]  # fmt: skip
    with (tmp_path / "log.txt").open("w") as log:
        main = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        try:
            checkpoints = tmp_path / "runs" / "sdm" / "checkpoints"
            wait_for(lambda: list(checkpoints.glob("0*.ckpt")) or main.poll() is not None, 600)
            assert main.poll() is None, (tmp_path / "log.txt").read_text()
            (other,) = children(main.pid)
            os.kill(main.pid if victim == "rank 0" else other, signal.SIGKILL)
            wait_for(lambda: main.poll() is not None, 120)
            wait_for(lambda: not Path(f"/proc/{other}").exists() or _zombie(other), 120)
        finally:
            main.kill()
    assert main.returncode != 0
    assert not list(checkpoints.glob("*.partial"))


def _zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
