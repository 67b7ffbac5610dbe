"""metrics.csv: what was written stays, whatever comes between."""

import csv
import os

import pytest
import torch

from sdm_lightning.training.loggers import MetricsFile


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


def log(logger, step, **values):
    logger.log_metrics(values, step)
    logger.save()


def test_rows_of_new_names_and_of_a_resumed_run_come_after_the_others(tmp_path):
    first = MetricsFile(str(tmp_path))
    log(first, 0, b=torch.tensor(0.5))
    log(first, 1, a=2, c=float("inf"))
    again = MetricsFile(str(tmp_path))
    log(again, 2, b=3)
    expected = [
        {"b": "0.5", "step": "0"},
        {"a": "2", "c": "inf", "step": "1"},
        {"b": "3", "step": "2"},
    ]
    assert rows(tmp_path) == expected
    # A second command on the same run adds a column; the first one goes on.
    log(MetricsFile(str(tmp_path)), 3, new=4)
    log(first, 4, b=5, a=6)
    assert rows(tmp_path)[3:] == [{"new": "4", "step": "3"}, {"a": "6", "b": "5", "step": "4"}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("values", [{"loss": 2}, {"new": 2}], ids=["appended", "new column"])
def test_a_full_disk_leaves_the_earlier_rows(tmp_path, monkeypatch, values):
    logger = MetricsFile(str(tmp_path))
    log(logger, 0, loss=1)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*/metrics\.csv'"):
            log(logger, 1, **values)
    assert rows(tmp_path) == [{"loss": "1", "step": "0"}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    logger.save()  # with room again, the row is not lost
    assert rows(tmp_path)[1:] == [{**dict.fromkeys(values, "2"), "step": "1"}]


def test_a_power_cut_in_between_leaves_the_old_or_the_new_table(tmp_path, monkeypatch):
    """The table with the new column is on disk before it takes the name."""
    logger = MetricsFile(str(tmp_path))
    log(logger, 0, loss=1)
    seen = []

    def fsync(descriptor, real=os.fsync):
        seen.append(rows(tmp_path))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    log(logger, 1, new=2)
    old, new = [{"loss": "1", "step": "0"}], [{"new": "2", "step": "1"}]
    assert seen == [old, old + new]


def test_a_row_that_a_power_cut_left_half_written_is_dropped(tmp_path):
    log(MetricsFile(str(tmp_path)), 0, loss=0.25)
    with (tmp_path / "metrics.csv").open("ab") as file:
        file.write(b"0.12")  # of 0.125,1
    log(MetricsFile(str(tmp_path)), 2, loss=0.5)
    assert rows(tmp_path) == [{"loss": "0.25", "step": "0"}, {"loss": "0.5", "step": "2"}]
