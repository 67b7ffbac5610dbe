"""A checkpoint is tested at another size than it was trained at, as in Table B.1."""

import re

import pytest

from sdm_lightning.reports.results import read_result_lines


def test_tested_at_twice_the_size_but_with_no_other_network(sdm, capsys):
    directory = sdm("fit", "--budget.max_images=2")
    larger = ("test", "--ckpt_path=last", "--data.resolution=32", "--seed_everything=5")
    with pytest.raises(SystemExit):
        sdm(*larger)
    # 20x18 pixels of 32x32.
    assert "65% of the crops of 32x32 is mirrored padding (mean of 5" in capsys.readouterr().err
    assert not (directory / "results.jsonl").exists()
    sdm(*larger, "--evaluation.max_padding=0.7")
    line = read_result_lines(directory / "results.jsonl")[-1]
    assert line["data"]["resolution"] == 32
    assert line["images_seen"] == 2
    assert (line["seed"], line["training_seed"]) == (5, 0)

    capsys.readouterr()
    for change, command, first in (
        ("--data.resolution=32", "fit", r"discriminator\.\S+, nothing there and \(.*\) here"),
        ("--model.generator.init_args.base_channels=4", "test",
         r"generator_ema\.\S+, \(8, .*\) there and \(4, .*\) here"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stopped:
            sdm(command, "--ckpt_path=last", change)
        assert stopped.value.code == 2
        (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
        pattern = r"error: runs/run/checkpoints/\S+: belongs to a different .* first is "
        assert re.match(f"{pattern}{first}; use", line)
