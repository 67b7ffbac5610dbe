"""Tables from result lines: means, deviations, differences, blanks, formats."""

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from sdm_lightning.errors import InputError
from sdm_lightning.reports import results
from sdm_lightning.reports.paper import read_paper_table, select_lines
from sdm_lightning.reports.tables import print_table, table_text


def line(row: str, seed: int, table: str = "table1", **values: Any) -> dict[str, Any]:
    metrics = values.pop("metrics", {"fid": 2.5})
    return {
        "time": "2026-01-01T00:00:00",
        "protocol": "p",
        "metrics": {f"{name}/p": value for name, value in metrics.items()},
        "num_images": 36500,
        "images_seen": 6000000,
        "seed": seed,
        "table": table,
        "row": row,
        "scale": "paper",
        "hardware": {"cpu": "C", "threads": 1, "gpus": ["H"] * 8},
        "git_commit": "0123456789abcdef",
        **values,
    }


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    return str(path)


def cells(name: str, lines: list[dict[str, Any]], path: Path, **options: Any) -> dict[str, dict]:
    """The CSV of a table as row -> heading -> cell; rows of several places by name/place."""
    text = table_text(name, format="csv", results=[write(path / "r.jsonl", lines)], **options)
    rows = list(csv.reader(io.StringIO(text)))
    headings = rows[0]
    found = {}
    for row in rows[1:]:
        if len(row) == len(headings) and not row[0].startswith("#"):
            cell = dict(zip(headings, row, strict=True))
            place = cell.get("Iterations") or cell.get("Test set")
            found[f"{row[0]}/{place}" if place else row[0]] = cell
    return found


def test_an_own_score_is_better_as_its_lines_say(tmp_path: Path) -> None:
    own = line("A", 0, metrics={"hole_colour": 1.5}, better={"hole_colour": "lower"})
    file = write(tmp_path / "r.jsonl", [own])
    text = table_text("table1", results=[file], metrics=["hole_colour"])
    assert "1.5000" in text
    assert "Better is: hole_colour lower." in text
    with pytest.raises(InputError, match="no result has 'hole_color'; there are hole_colour"):
        table_text("table1", results=[file], metrics=["hole_colour", "hole_color"])


def test_mean_deviation_and_difference(tmp_path: Path) -> None:
    values = [2.40, 2.50, 2.65]
    lines = [line("A", seed, metrics={"fid": v}) for seed, v in enumerate(values)]
    lines.append(line("B", 0, metrics={"fid": 3.0}))
    found = cells("table1", lines, tmp_path)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    assert found["A (full)"]["FID, ours"] == f"{mean:.2f} ± {deviation:.2f}"
    assert found["A (full)"]["difference"] == f"{mean - 2.36:+.2f}"
    b, c = found["B (T = 1)"], found["C (T = 2)"]
    assert b["FID, ours"] == "3.00 (n = 1)"
    assert b["vs A, paper"] == "+0.59"
    assert b["vs A, ours (fid)"] == f"{3 - values[0]:+.2f} (n = 1)"  # the seed of both
    assert [c[k] for k in ("FID, ours", "difference", "vs A, ours (fid)")] == ["", "", ""]
    assert c["FID, paper"] == "2.55"


def test_changes_are_taken_seed_by_seed(tmp_path: Path) -> None:
    """What two rows share from seed to seed is no noise of their difference."""
    lines = [line("A", s, metrics={"fid": v}) for s, v in enumerate([2.0, 3.0, 4.0])]
    lines += [line("B", s, metrics={"fid": v}) for s, v in enumerate([2.4, 3.6, 4.5])]
    lines += [line("C", s, metrics={"fid": v}) for s, v in ((7, 2.0), (8, 5.0))]
    lines += [line("D", s, metrics={"fid": v}) for s, v in ((1, 2.0), (7, 5.0))]
    found = cells("table1", lines, tmp_path)
    assert found["B (T = 1)"]["vs A, ours (fid)"] == "+0.50 ± 0.10 (n = 3)"
    assert found["C (T = 2)"]["vs A, ours (fid)"] == "+0.50 (n = 2)"  # other seeds: the means alone
    assert found["D (- DPM)"]["vs A, ours (fid)"] == "-1.00 (n = 1)"  # one seed in common


def test_seeds_that_diverged_are_told(tmp_path: Path) -> None:
    lines = [line("A", s, metrics={"fid": v}) for s, v in enumerate([2.0, 3.0, 4.0])]
    lines += [line("B", s, metrics={"fid": v}) for s, v in enumerate([2.5, "nan", "inf"])]
    lines += [line("C", s, metrics={"fid": v}) for s, v in enumerate([2.5, 3.5])]
    lines += [line("D", s, metrics={"fid": "nan"}) for s in range(3)]
    found = cells("table1", lines, tmp_path)
    ours, change = "FID, ours", "vs A, ours (fid)"
    assert (found["A (full)"][ours]) == "3.00 ± 1.00"
    b, c = found["B (T = 1)"], found["C (T = 2)"]
    assert (b[ours], b[change]) == ("2.50 (1 of 3 seeds)", "+0.50 (1 of 3 seeds)")
    assert (c[ours], c[change]) == ("3.00 ± 0.71 (n = 2)", "+0.50 ± 0.00 (n = 2)")
    assert found["D (- DPM)"][ours] == "nan"


def test_the_seed_is_that_of_the_training(tmp_path: Path) -> None:
    """Tests of checkpoints (Table 2) all run with the test's own seed."""
    lines = [
        line("A", 0, training_seed=s, checkpoint={"path": f"{s}.ckpt"}, metrics={"fid": 2.0 + s})
        for s in (0, 1)
    ]
    lines += [
        line("B", 0, training_seed=s, checkpoint={"path": f"b{s}.ckpt"}, metrics={"fid": 3.0 + s})
        for s in (0, 1)
    ]
    found = cells("table1", lines, tmp_path)
    assert found["B (T = 1)"]["vs A, ours (fid)"] == "+1.00 ± 0.00"
    assert "seeds 0, 1" in table_text("table1", results=[write(tmp_path / "r.jsonl", lines)])


def test_own_rows_come_last_and_training_runs_are_left_out(tmp_path: Path) -> None:
    lines = [line("A", 0), line("mine", 0, metrics={"fid": 2.0})]
    found = cells("table1", lines, tmp_path)
    assert list(found)[-1] == "mine"
    assert (found["mine"]["FID, paper"], found["mine"]["FID, ours"]) == ("-", "2.00")
    assert found["mine"]["vs A, ours (fid)"] == "-0.50"

    trained = line("sdm", 0, "tableD3", setting="training-masks", metrics={"x": 1.0})
    text = table_text("tableD3", results=[write(tmp_path / "r.jsonl", [trained])])
    assert "not run yet" in text


def test_a_stand_in_never_stands_in_the_papers_column(tmp_path: Path) -> None:
    lines = [line("A", 0, metrics={"fid[random-conv]": 0.25, "psnr_hole": 15.0}, scale="cpu")]
    text = table_text("table1", results=[write(tmp_path / "r.jsonl", lines)])
    found = cells("table1", lines, tmp_path)
    assert found["A (full)"]["FID, paper"] == "2.36"
    assert not {"FID, ours", "difference"} & found["A (full)"].keys(), "blank in every row"
    assert found["A (full)"]["fid[random-conv], ours"] == "0.250"
    assert found["A (full)"]["psnr_hole, ours"] == "15.00"
    assert "not the paper's metric" in text
    assert "scaled down" in text
    assert "CPU C, 1 thread" not in text
    assert "8 x H" in text
    on_cpu = write(tmp_path / "r.jsonl", [line("A", 0, device="cpu")])
    assert "Hardware: CPU C, 1 thread" in table_text("table1", results=[on_cpu])


def test_nothing_run_is_all_blank(tmp_path: Path) -> None:
    text = table_text("table4", results=[write(tmp_path / "r.jsonl", [])])
    assert "not run yet" in text
    assert "2.54" in text


def test_what_sdm_evaluate_recorded_here_is_found(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    looked_in = "not run yet (looked in results.jsonl, runs, experiments/results)"
    assert looked_in in table_text("table3")
    write(tmp_path / "results.jsonl", [evaluated("LaMa")])
    assert "not run yet" not in table_text("table3")


def test_newest_line_of_a_run_counts(tmp_path: Path) -> None:
    old = line("A", 0, metrics={"fid": 9.0})
    new = line("A", 0, metrics={"fid": 2.0}, time="2026-01-02T00:00:00")
    assert cells("table1", [new, old], tmp_path)["A (full)"]["FID, ours"] == "2.00"


def test_iterations_pick_their_column(tmp_path: Path) -> None:
    lines = [
        line(row, 0, "table2", num_iterations=t, metrics={"fid": 2 + t / 100})
        for row in "AB"
        for t in (4, 10)
    ]
    found = cells("table2", lines, tmp_path)
    assert found["Model A/4"]["FID, ours"] == "2.04"
    assert found["Model A/5"]["FID, ours"] == ""
    assert found["Model B/10"]["difference"] == f"{2.10 - 2.11:+.2f}"


def test_tests_with_other_iterations_than_trained_are_left_out(tmp_path: Path) -> None:
    """Else one further test of A's run would be in the way of the whole table."""
    lines = [line("A", 0, num_iterations=t, train_iterations=3, metrics={"fid": t}) for t in (3, 8)]
    lines.append(line("B", 0, num_iterations=1, train_iterations=1))
    lines.append(line("random", 0, num_iterations=4, train_iterations=[1, 2]))
    found = cells("table1", lines, tmp_path)
    rows = ("A (full)", "B (T = 1)", "random")
    assert [found[row]["FID, ours"] for row in rows] == ["3.00", "2.50", "2.50"]
    assert cells("table4", lines, tmp_path)["Linear"]["FID, ours"] == "3.00"
    file, eight = str(tmp_path / "r.jsonl"), {"num_iterations": 8}
    said = "Left out: 1 result(s) tested with other iterations than trained"
    assert said in table_text("table1", results=[file])
    assert "Left out" not in table_text("table1", results=[file], where=eight)
    found = cells("table1", lines, tmp_path, where=eight)
    assert [found[row]["FID, ours"] for row in rows[:2]] == ["8.00", ""]


def test_linear_is_model_a(tmp_path: Path) -> None:
    found = cells("table4", [line("A", 0, metrics={"fid": 2.4})], tmp_path)
    assert found["Linear"]["FID, ours"] == "2.40"
    assert found["Cubic"]["FID, ours"] == ""


def test_other_methods_come_from_evaluated_folders(tmp_path: Path) -> None:
    metrics = {"fid": 1.07, "p_ids": 27.0, "u_ids": 41.0, "lpips": 0.1}
    evaluated = {
        "metrics": {f"{k}/places36500-512-small": v for k, v in metrics.items()},
        "protocol": "places36500-512-small",
        "method": "DeepFill-v2",
        "command": "evaluate",
    }
    found = cells("table3", [evaluated], tmp_path)["DeepFill v2/places2-small"]
    assert found["FID, ours"] == "1.07"
    assert found["P-IDS (%), difference"] == "+17.83"
    assert (
        cells("tableC2", [evaluated], tmp_path)["DeepFill v2/places2-small"]["LPIPS, ours"]
        == "0.100"
    )


def test_evaluated_folders_that_are_left_out_are_named(tmp_path: Path) -> None:
    protocols = {"places36k5-large": "LaMa", "places36500-512-large": None}
    lines = [
        {"metrics": {f"fid/{p}": 3.0}, "protocol": p, "method": m, "command": "evaluate"}
        for p, m in {**protocols, "places36500-512-small": "LaMa"}.items()
    ]
    place = write(tmp_path / "r.jsonl", lines)
    text = table_text("table3", results=[place])
    assert "Left out: 2 result(s) of sdm evaluate" in text
    assert "LaMa (places36k5-large), no method (places36500-512-large). Its protocols: p" in text
    assert "Left out" not in table_text("table1", results=[place])


def evaluated(method: str, **values: Any) -> dict[str, Any]:
    """The line of ``sdm evaluate``, for Table 3."""
    protocol = "places36500-512-large"
    facts = {"protocol": protocol, "metrics": {f"fid/{protocol}": values.pop("fid", 1.0)}}
    digests = {"num_images": 9, "images_digest": "a" * 64, "masks_digest": "b" * 64}
    return {"command": "evaluate", "method": method, **facts, **digests, **values}


def test_methods_and_comparisons_of_ones_own(tmp_path: Path, monkeypatch) -> None:
    """The second as docs/evaluation.md describes it."""
    mine = [evaluated("Mine", seed=s, fid=value) for s, value in enumerate((2.0, 2.2))]
    lines = [*mine, evaluated("LaMa", seed=None, fid=3.0)]
    found = cells("table3", lines, tmp_path)
    assert found["Mine/places2-large"]["FID, ours"] == "2.10 ± 0.14"
    assert found["LaMa/places2-large"]["FID, ours"] == "3.00 (n = 1)"
    guide = Path(__file__).parents[2] / "docs" / "evaluation.md"
    own = tmp_path / "experiments" / "paper" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(guide.read_text().partition("```yaml\n")[2].partition("```")[0])
    monkeypatch.chdir(tmp_path)
    facts = {"protocol": "photos500", "metrics": {"fid/photos500": 2.0}}
    assert cells("mine", [x | facts for x in lines], tmp_path)["Mine"]["FID, ours"] == "2.00 ± 0.00"
    place = str(tmp_path / "r.jsonl")
    assert table_text("mine", results=[place]).startswith("**Inpainting of photos**")
    latex = table_text("mine", format="latex", results=[place])
    assert r"\caption{Inpainting of photos. Paper: not in the paper." in latex


def test_a_method_scored_as_a_scales_own_tests_stands_beside_them(tmp_path: Path) -> None:
    tiny = {"protocol": "demo-64-large", "metrics": {"fid/demo-64-large": 4.0}}
    sdm = {**line("sdm", 0, "table3", setting="places2-large", scale="tiny", num_images=9), **tiny}
    validated = {**sdm, "command": "validate", "setting": "celebahq-large", "time": "2025"}
    other = {**sdm, "setting": "celebahq-large"}
    for table, place in (("table3", "/places2-large"), ("tableB1", "")):
        lines = [validated, {**sdm, "table": table}, other, evaluated("Mine", **tiny)]
        found = cells(table, lines, tmp_path, scale="tiny")
        assert found["Mine" + place]["FID, ours"] == "4.00"
        file = str(tmp_path / "r.jsonl")
        assert "Left out" not in table_text(table, "tiny", results=[file])
        assert "Left out: 1 result(s)" in table_text(table, "paper", results=[file])


def test_evaluated_folders_have_no_seeds_and_no_images_seen(tmp_path: Path) -> None:
    text = table_text("table3", results=[write(tmp_path / "r.jsonl", [evaluated("LaMa")])])
    assert "scale not recorded; images seen: not recorded; protocol places36500" in text
    assert "9 test images; seeds not recorded." in text


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"images_digest": "c" * 64}, "differ in images_digest (aaaaaaaaaaaa and cccccccccccc)"),
        ({"num_images": 8}, "differ in num_images (8 and 9)"),
        ({"masks_digest": None}, "differ in masks_digest (not recorded and bbbbbbbbbbbb)"),
        ({"composite": True}, "differ in composite (False and True)"),
    ],
)
def test_a_newer_evaluation_replaces_none_of_other_images(
    facts: dict[str, Any], said: str, tmp_path: Path
) -> None:
    old = evaluated("LaMa", composite=False, time="1", fid=1.0)
    again = evaluated("LaMa", composite=False, time="2", fid=2.0)
    found = cells("table3", [again, old], tmp_path)["LaMa/places2-large"]
    assert found["FID, ours"] == "2.00"
    file = write(tmp_path / "r.jsonl", [old, {**again, **facts}])
    with pytest.raises(InputError) as error:
        table_text("table3", results=[file])
    assert said in str(error.value)
    (key, value), *_ = facts.items()
    assert "| 2.00 |" in " ".join(table_text("table3", results=[file], where={key: value}).split())


def test_rows_without_a_digest_are_named(tmp_path: Path) -> None:
    """FID needs no masks: results that were scored without are shown, with a note."""
    lines = [evaluated("LaMa"), evaluated("MAT", masks_digest=None)]
    text = table_text("table3", results=[write(tmp_path / "r.jsonl", lines)])
    assert "Rows without masks_digest, whose masks may not be those of the others: mat." in text
    assert "images_digest" not in text
    alone = table_text("table3", results=[write(tmp_path / "r.jsonl", lines[1:])])
    assert "masks_digest" not in alone


def test_rows_whose_known_pixels_differ_are_named(tmp_path: Path) -> None:
    lines = [
        evaluated("LaMa", known_error=3.08, composite=False),
        evaluated("MAT", known_error=3.08, composite=True),
        evaluated("ICT", known_error=0.0, composite=False),
        evaluated("MADF", known_error=None, composite=False),
    ]
    text = table_text("table3", results=[write(tmp_path / "r.jsonl", lines)])
    assert "Known pixels differ from the originals' in lama (3.08 levels): do not" in text


def test_lpips_of_table3s_runs_fill_c2(tmp_path: Path) -> None:
    run = line("sdm", 0, "table3", setting="places2-large", metrics={"lpips": 0.1654})
    trained = {**run, "setting": "training-masks", "protocol": "training"}
    found = cells("tableC2", [run, trained], tmp_path)["SDM/places2-large"]
    assert "training;" not in table_text("tableC2", results=[str(tmp_path / "r.jsonl")])
    assert (found["LPIPS, ours"], found["difference"]) == ("0.165", "+0.004")


def test_scale_is_a_filter(tmp_path: Path) -> None:
    lines = [line("A", 0), line("A", 0, scale="tiny", metrics={"fid": 50.0})]
    assert cells("table1", lines, tmp_path, scale="tiny")["A (full)"]["FID, ours"] == "50.00"
    assert cells("table1", lines, tmp_path, scale="paper")["A (full)"]["FID, ours"] == "2.50"
    text = table_text("table1", "tny", results=[write(tmp_path / "r.jsonl", lines)])
    assert "No run has scale tny; there are runs of scale paper, tiny." in text


def test_each_line_counts_once(tmp_path: Path) -> None:
    """A sweep's results hold those of its cells, which lie below it."""
    (tmp_path / "A-seed0").mkdir()
    for folder in (tmp_path, tmp_path / "A-seed0"):
        write(folder / "results.jsonl", [line("A", 0)])
    assert results.gather([tmp_path]) == [line("A", 0)]


def test_all_formats_hold_the_same_cells(tmp_path: Path) -> None:
    """Each format is read back by its own rules."""
    place = write(tmp_path / "r.jsonl", [line("A", 0), line("A", 1, metrics={"fid": 2.7})])
    expected = list(csv.reader(io.StringIO(table_text("table1", format="csv", results=[place]))))
    expected = [row for row in expected if not row[0].startswith("#")]

    markdown = table_text("table1", results=[place]).splitlines()
    rows = [[c.strip() for c in r.strip("|").split("|")] for r in markdown if r.startswith("|")]
    assert [rows[0], *rows[2:]] == expected

    latex = table_text("table1", format="latex", results=[place])
    body = [r for r in latex.splitlines() if r.endswith(r"\\")]
    plain = [r.removesuffix(r"\\").replace(r"$\pm$", "±").replace(r"\_", "_") for r in body]
    plain = [r.replace("$-$", "-") for r in plain]
    assert [[c.strip() for c in r.split("&")] for r in plain] == expected


def test_a_latex_table_can_be_pasted(tmp_path: Path) -> None:
    lines = [line("A", 0), line("B", 0, metrics={"fid": 2.25})]
    place = write(tmp_path / "r.jsonl", lines)
    print_table("table1", results=[place], output=str(tmp_path / "table1.tex"))
    latex = (tmp_path / "table1.tex").read_text()
    assert r"B (T = 1) & 2.95 & 2.25 & $-$0.70 & +0.59 & $-$0.25 \\" in latex
    assert r"\caption{Ablation of training iterations, modelling" in latex
    assert " and attention (Table 1 of the SDM paper). Paper: Places365-Standard" in latex
    assert latex.endswith("}\n\\label{tab:table1}\n\\end{table}\n")
    print_table("table1", results=[place], output=str(tmp_path / "table1.csv"))
    assert (tmp_path / "table1.csv").read_text().startswith("Model,")


def test_latex_holds_any_text(tmp_path: Path) -> None:
    lines = [line(row, 0) for row in (r"a\b$c", "[x]", "*", "p^q~<r>|")]
    latex = table_text("table1", format="latex", results=[write(tmp_path / "r.jsonl", lines)])
    rows = [text.partition(" &")[0] for text in latex.splitlines()]
    assert rows[-9:-5] == [
        "{}*", "{}[x]", r"a\textbackslash{}b\$c",
        r"p\textasciicircum{}q\textasciitilde{}\textless{}r\textgreater{}\textbar{}",
    ]  # fmt: skip


def test_a_name_of_several_lines_stays_in_its_cell(tmp_path: Path) -> None:
    lines = [line("x\n# heading <b>", 0, hardware={"cpu": "C\n\n# note", "threads": 1})]
    place = write(tmp_path / "r.jsonl", lines)
    text = table_text("table1", results=[place])
    assert "| x # heading &lt;b> " in text
    assert "\n#" not in text
    assert "CPU C # note" in text
    assert "\n# note" not in table_text("table1", format="csv", results=[place])


@pytest.mark.parametrize(
    "facts",
    [
        {"hardware": "x"}, {"hardware": [1]}, {"hardware": {"gpus": 3}},
        {"hardware": {"gpus": {"a": 1}}}, {"checkpoint": "last.ckpt"}, {"checkpoint": [1]},
    ],
)  # fmt: skip
def test_lines_of_another_form_are_left_out(facts: dict[str, Any], tmp_path: Path) -> None:
    place = write(tmp_path / "r.jsonl", [line("A", 0), line("B", 0, **facts)])
    assert [found["row"] for found in results.read_result_lines(place)] == ["A"]
    assert table_text("table1", results=[place])


def test_output_file_and_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = write(tmp_path / "r.jsonl", [line("A", 0)])
    print_table("table1", results=[place], output=str(tmp_path / "t" / "table1.md"))
    assert (tmp_path / "t" / "table1.md").read_text().startswith("**Table 1")
    with pytest.raises(InputError, match="no table 'table9'; there are table1"):
        print_table("table9")
    with pytest.raises(InputError, match="no such file"):
        print_table("table1", results=["nowhere.jsonl"])


def test_gather_finds_files_below_folders_but_not_set_aside_ones(tmp_path: Path) -> None:
    for folder, row in (("a", "A"), (".a.before1", "B"), ("b/c", "C")):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder / "results.jsonl", [line(row, 0)])
    assert [found["row"] for found in results.gather([tmp_path])] == ["A", "C"]


def test_wandb_lines() -> None:
    """What a tested run leaves in W&B: its result line, as text in the summary."""
    record = line("C", 1)
    assert results.wandb_line({"test/fid": 2.5, "record": json.dumps(record)}) == record
    assert results.wandb_line({"test/fid": 2.5, "record": "cut sho"}) is None
    assert results.wandb_line({"train/x": 1.0}) is None


def test_paper_lines_select_by_table() -> None:
    table = read_paper_table("table1")
    assert select_lines([line("A", 0), line("A", 0, "table4")], table, None) == [line("A", 0)]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"scale": "tiny"}, "differ in scale (paper and tiny)"),
        ({"protocol": "other"}, "differ in protocol (other and p)"),
        ({"num_iterations": 4}, "differ in num_iterations (3 and 4)"),
        ({"images_seen": 3000000}, "differ in images_seen (3000000 and 6000000)"),
        ({"masks_digest": "ffff"}, "differ in masks_digest (0000 and ffff)"),
        ({"masks_digest": None}, "differ in masks_digest (0000 and not recorded)"),
        ({"train_iterations": 3}, "differ in train_iterations (3 and not recorded)"),
        ({"parameters": "raw"}, "differ in parameters (ema and raw)"),
        ({"alpha": 0.5}, "differ in alpha (0.01 and 0.5)"),
        ({"schedule": "Cosine"}, "differ in schedule (Cosine and not recorded)"),
        ({"diffusion": "RegionDiffusion"}, "diffusion (RegionDiffusion and SpatialDiffusion)"),
        ({"repredict": False}, "differ in repredict (False and True)"),
        ({"uncertainty_scale": "clamp"}, "differ in uncertainty_scale (clamp and minmax)"),
        ({"networks": {"features": {"sha256": "2"}}}, "networks.features.sha256 (1 and 2)"),
        ({"seed": 0, "checkpoint": {"path": "b.ckpt"}}, "2 results of seed 0 (last.ckpt, b.ckpt)"),
    ],
)  # fmt: skip
def test_only_seeds_are_averaged(facts: dict[str, Any], said: str, tmp_path: Path) -> None:
    same = {
        "num_iterations": 3, "masks_digest": "0000", "checkpoint": {"path": "last.ckpt"},
        "parameters": "ema", "alpha": 0.01, "networks": {"features": {"sha256": "1"}},
        "repredict": True, "uncertainty_scale": "minmax", "diffusion": "SpatialDiffusion",
    }  # fmt: skip
    first = line("A", 0, **same)
    file = write(tmp_path / "r.jsonl", [first, {**line("A", 1, **same), **facts}])
    with pytest.raises(InputError) as error:
        table_text("table1", results=[file])
    assert str(error.value).startswith("table1, row A: ")
    assert said in str(error.value)


def test_settings_that_older_results_did_not_record_are_averaged(tmp_path: Path) -> None:
    file = write(tmp_path / "r.jsonl", [line("A", 0), {**line("A", 1), "repredict": True}])
    assert "| A " in table_text("table1", results=[file])


@pytest.mark.parametrize(
    ("facts", "key", "shown"),
    [
        ({"protocol": "q"}, "protocol", "(A, C: p; B: q)"),
        ({"num_images": 7}, "num_images", "(A, C: 9; B: 7)"),
        ({"images_digest": "f" * 64}, "images_digest", "(A, C: 000000000000; B: ffffffffffff)"),
        ({"masks_digest": "f" * 64}, "masks_digest", "(A, C: 111111111111; B: ffffffffffff)"),
        ({"networks": {"features": {"sha256": "d"}}}, "networks.features.sha256",
         "(A, C: e; B: d)"),
    ],
)  # fmt: skip
def test_rows_of_other_images_are_not_compared(
    facts: dict[str, Any], key: str, shown: str, tmp_path: Path
) -> None:
    same = {
        "num_images": 9, "images_digest": "0" * 64, "masks_digest": "1" * 64,
        "networks": {"features": {"sha256": "e"}},
    }  # fmt: skip
    lines = [line(row, 0, **same) for row in "ABC"]
    # Iterations and images seen are the rows' own.
    lines[2].update(num_iterations=2, images_seen=3)
    file = write(tmp_path / "r.jsonl", lines)
    assert "B (T = 1)" in cells("table1", lines, tmp_path)
    write(tmp_path / "r.jsonl", [lines[0], {**lines[1], **facts}, lines[2]])
    with pytest.raises(InputError) as error:
        table_text("table1", results=[file])
    assert str(error.value) == (
        f"table1: its rows differ in {key} {shown} and cannot be compared; choose with --where "
        f"'{{\"{key}\": VALUE}}', or name the files with --results"
    )
    value = results.label_of({**lines[1], **facts}, key)
    assert "not run" not in table_text("table1", results=[file], where={key: value})


def test_what_is_measured_apart_may_differ(tmp_path: Path) -> None:
    """Test sets have images of their own, and scores of other networks stand in other columns."""
    small = evaluated("LaMa", protocol="places36500-512-small", num_images=3, images_digest="1")
    large = evaluated("MAT", networks={"features": {"sha256": "1"}})
    other = evaluated("LaMa", networks={"features": {"sha256": "2"}})
    other["metrics"] = {"fid[x]/p": 1.0}
    found = cells("table3", [small, large, other], tmp_path, metrics=["fid", "fid[x]"])
    assert found["LaMa/places2-small"]["FID, ours"] == "1.00"
    assert found["MAT/places2-large"]["FID, ours"] == "1.00"
    assert found["LaMa/places2-large"]["fid[x], ours"] == "1.000"


def test_iterations_of_one_curve_are_of_the_same_images(tmp_path: Path) -> None:
    lines = [line("A", 0, "table2", num_iterations=t, images_digest=str(t)) for t in (4, 5)]
    with pytest.raises(InputError, match=r"table2: .* differ in images_digest \(A: 4; A: 5\)"):
        table_text("table2", results=[write(tmp_path / "r.jsonl", lines)])


def test_one_setting_is_chosen(tmp_path: Path) -> None:
    lines = [line("A", 0, metrics={"fid": 2.0}), line("A", 0, images_seen=1000, metrics={"fid": 9})]
    found = cells("table1", lines, tmp_path, where={"images_seen": 6000000})
    assert found["A (full)"]["FID, ours"] == "2.00"
    lines = [line("A", seed, images_digest=d * 64) for seed, d in enumerate("ab")]
    chosen = {"images_digest": "b" * 12}  # as the message shows it
    assert "seeds 1." in table_text("table1", results=[write(tmp_path / "d", lines)], where=chosen)
    with pytest.raises(InputError, match="none of 2 results has"):
        table_text("table1", results=[str(tmp_path / "d")], where={"images_seen": 5})


def test_results_without_a_seed_are_not_averaged(tmp_path: Path) -> None:
    lines = [line("A", 0), {**line("A", 0), "seed": None, "checkpoint": {"path": "x"}}]
    with pytest.raises(InputError, match=r"1 results without a seed \(x\) are not averaged"):
        table_text("table1", results=[write(tmp_path / "r.jsonl", lines)])


def test_validations_and_copies_of_a_checkpoint_are_no_runs(tmp_path: Path) -> None:
    lines = [
        line("A", 0, checkpoint={"path": "runs/a.ckpt", "sha256": "1"}, metrics={"fid": 2.0}),
        line("A", 0, checkpoint={"path": "/x/runs/a.ckpt", "sha256": "1"}, metrics={"fid": 2.0}),
        line("A", 1, command="validate", metrics={"fid": 50.0}),
    ]
    assert cells("table1", lines, tmp_path)["A (full)"]["FID, ours"] == "2.00"


PHOTOS_METRICS = ["fid[efficientnet-lite2]", "kid[efficientnet-lite2]", "psnr_hole"]


@pytest.mark.parametrize(
    ("file", "name", "scale", "metrics"),
    [
        ("cpu-table1", "table1", "cpu", None),
        ("cpu-table2", "table2", "cpu", None),
        ("cpu-table4", "table4", "cpu", None),
        ("cpu-table1-uncertainty", "table1", "cpu", ["uncertainty_error_correlation"]),
        ("photos-continued", "table1", "continued", PHOTOS_METRICS),
    ],
)
def test_the_committed_tables_follow_from_the_committed_lines(
    file: str, name: str, scale: str, metrics: list[str] | None
) -> None:
    results_folder = Path(__file__).parents[2] / "experiments" / "results"
    kept = (results_folder / f"{file}.md").read_text()
    assert table_text(name, scale, "md", [results_folder], metrics) + "\n" == kept


def test_a_misspelt_key_of_a_table_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("experiments/paper/mine.yaml")
    path.parent.mkdir(parents=True)
    path.write_text("columns: []\nrefrence: A\n")
    with pytest.raises(InputError, match=r"mine.yaml: .* 'refrence'"):
        read_paper_table("mine")
