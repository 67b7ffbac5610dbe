"""`sdm validate` scores what the command line says, whatever the training did."""

import pytest

from sdm_lightning.cli.main import main
from sdm_lightning.files import sha256_of_file
from sdm_lightning.reports.results import read_result_lines


def test_validate_scores_all_images_and_prints_their_scores_names(sdm, capsys, caplog):
    """The config's limit is for the short validations during training."""
    limit = "--trainer.limit_val_batches=0"
    sdm("fit", limit)
    capsys.readouterr()
    few = "--evaluation.few_pairs=true"
    run = sdm("validate", limit.replace("=0", "=1"), "--ckpt_path=last", few)
    assert "a part of the val images: not recorded" in caplog.text, (
        "one on the command line is meant"
    )
    assert not (run / "results.jsonl").exists()
    config = run / "config.yaml"
    assert "limit_val_batches: 0" in config.read_text()
    main(["validate", f"--config={config}", "--ckpt_path=last", few,
          "--evaluation.features=random-conv"])  # fmt: skip
    printed = capsys.readouterr().out
    assert read_result_lines(run / "results.jsonl")[-1]["num_images"] == 5
    assert "fid[random-conv]/custom" in printed
    assert "p_ids[random-conv,n<2500]/custom" in printed


def test_weights_are_scored_as_the_checkpoint_that_they_were_exported_from(sdm, tmp_path, capsys):
    run = sdm("fit", "--budget.max_images=4")
    weights = str(tmp_path / "exported.safetensors")
    main(["export", str(run), weights])
    sdm("test", "--ckpt_path=last")
    sdm("test", f"--ckpt_path={weights}", "--seed_everything=0")
    first, second = read_result_lines(run / "results.jsonl")
    assert second["metrics"] == first["metrics"]
    assert second["images_seen"] == first["images_seen"] == 4
    assert second["checkpoint"] == {"path": weights, "sha256": sha256_of_file(weights)}
    main(["push", weights, "me/holes", "--folder", "card", f"--results={run / 'results.jsonl'}"])
    with pytest.raises(SystemExit):
        sdm("fit", f"--ckpt_path={weights}", name="other")
    assert (
        "exported.safetensors' holds weights alone (--ckpt_path FILE, last or auto; --start_from"
        in capsys.readouterr().err
    )
