"""`sdm validate` scores what the command line says, whatever the training did."""

from sdm_lightning.cli.main import main
from sdm_lightning.reports.results import read_result_lines


def test_validate_scores_all_images_and_prints_their_scores_names(sdm, capsys):
    """The config's limit is for the short validations during training."""
    limit = "--trainer.limit_val_batches=0"
    sdm("fit", limit)
    capsys.readouterr()
    few = "--evaluation.few_pairs=true"
    run = sdm("validate", limit.replace("=0", "=1"), "--ckpt_path=last", few)
    (record,) = read_result_lines(run / "results.jsonl")
    assert record["num_images"] == 2, "a limit on the command line is meant"
    config = run / "config.yaml"
    assert "limit_val_batches: 0" in config.read_text()
    main(["validate", f"--config={config}", "--ckpt_path=last", few,
          "--evaluation.features=random-conv"])  # fmt: skip
    printed = capsys.readouterr().out
    assert read_result_lines(run / "results.jsonl")[-1]["num_images"] == 5
    assert "fid[random-conv]/custom" in printed
    assert "p_ids[random-conv,n<2500]/custom" in printed
