"""Tests of images that are mostly padding are refused, by all processes together."""

import multiprocessing
import os
import re
import socket

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from sdm_lightning.training.callbacks.evaluation import EvaluationCallback
from tests.trainers import quiet_trainer


class Samples(torch.utils.data.IterableDataset):
    """This process's samples, of the given shares of padding each."""

    def __init__(self, shares, sized):
        self.shares, self.sized = shares, sized

    def __iter__(self):
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        for number, share in enumerate(self.shares[rank]):
            pixels = {"image": -torch.ones(3, 16, 16), "mask": torch.ones(1, 16, 16)}
            yield {**pixels, "key": f"{rank}-{number}", "padding": share}

    def __len__(self):
        if not self.sized:
            raise TypeError
        return len(self.shares[torch.distributed.get_rank()])


class Module(pl.LightningModule):
    def test_step(self, batch, index):
        return {**batch, "completed": batch["image"]}


def run_test(rank, port, shares, sized, ends):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, LOCAL_RANK=str(rank))
    trainer = quiet_trainer(
        devices=2, strategy=DDPStrategy(process_group_backend="gloo"),
        use_distributed_sampler=False, callbacks=[EvaluationCallback(record=None)],
    )  # fmt: skip
    try:
        trainer.test(Module(), DataLoader(Samples(shares, sized), batch_size=1), verbose=False)
        ends.put("scored")
    except Exception as error:
        ends.put(f"{type(error).__name__}: {error}")
        ends.close()
        ends.join_thread()
        os._exit(1)  # as a failed command does: without a word to the other


def ends_of_two(shares, sized=True):
    """How each of two processes ends; fails where one of them hangs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("fork")
    ends = context.Queue()
    processes = [
        context.Process(target=run_test, args=(rank, port, shares, sized, ends)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    try:
        return [ends.get(timeout=60) for _ in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("shares", "sized", "judged"),
    [
        (([0.0] * 10, [0.9] * 20), True, "45% .*mean of 16 images"),  # after eight batches
        (([0.0], [0.9] * 3), True, "45% .*mean of 2 images"),  # after what both have
        (([0.0], [0.8] * 3), False, "60% .*mean of 4 images"),  # at the end
        (([], [0.9] * 3), False, "90% .*mean of 3 images"),
    ],
)
def test_padding_on_one_process_stops_both_with_one_line(shares, sized, judged):
    first, second = ends_of_two(shares, sized)
    assert first == second
    assert re.match(f"InputError: {judged}", first), first


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_mean_over_both_counts():
    """Not that of one process, which happens to have the small images."""
    shares = ([0.0] * 10, [0.4] * 10)
    assert ends_of_two(shares) == ["scored", "scored"]
