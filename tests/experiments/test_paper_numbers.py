"""The typed numbers of the paper against a second transcription that a script cut out of it."""

from pathlib import Path

import pytest
import yaml

from sdm_lightning.scores import SCORES

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "experiments" / "paper"
TABLES = sorted(path.stem for path in PAPER.glob("*.yaml"))


def transcription() -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    for line in (Path(__file__).parent / "paper_tables.txt").read_text().splitlines():
        if line.startswith("["):
            rows = tables.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            rows.append(line)
    return tables


def printed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def test_every_table_is_there():
    assert sorted(transcription()) == TABLES
    assert TABLES == ["table1", "table2", "table3", "table4", "tableB1", "tableC2", "tableD3"]


@pytest.mark.parametrize("name", TABLES)
def test_numbers_equal_the_papers(name):
    table = yaml.safe_load((PAPER / f"{name}.yaml").read_text())
    expected = transcription()[name]
    assert len(table["rows"]) == len(expected)
    for row, line in zip(table["rows"], expected, strict=True):
        numbers = [printed(row[c["key"]], table.get("digits", 2)) for c in table["columns"]]
        words = line.split()
        assert words[-len(numbers) :] == numbers, row["name"]
        rest = words[: -len(numbers)]
        if name == "table1":
            assert rest == table1_facts(row)
            continue
        if "parameters_millions" in row:
            counts = row["parameters_millions"]
            counts = counts if isinstance(counts, list) else [counts]
            assert rest.pop() == "/".join(str(count) for count in counts)
        if "iterations" in row:
            assert rest.pop() == str(row["iterations"])
        assert rest == row["name"].split()


def table1_facts(row: dict) -> list[str]:
    """Row A to G as the text has it: 3 is a check mark, - does not apply, blank is switched off."""
    marks = [{True: "3", None: "-", False: ""}[row[key]] for key in ("dpm", "cs", "uga")]
    resolutions = ",".join(str(r) for r in row["attention_resolutions"])
    return [row["row"], str(row["iterations"]), *(m for m in marks if m), resolutions]


@pytest.mark.parametrize(("row", "switch"), [("D", "dpm"), ("E", "cs"), ("F", "uga")])
def test_table1_switches(row, switch):
    """The text's blanks do not say which mark is missing; Table 1's caption does."""
    table = yaml.safe_load((PAPER / "table1.yaml").read_text())
    found = next(r for r in table["rows"] if r["row"] == row)
    assert [key for key in ("dpm", "cs", "uga") if not found[key]] == [switch]


@pytest.mark.parametrize("name", TABLES)
def test_columns_say_what_they_are(name):
    table = yaml.safe_load((PAPER / f"{name}.yaml").read_text())
    for metric in (column["metric"] for column in table["columns"]):
        score = SCORES[metric]
        assert score.better == ("lower" if metric in ("fid", "lpips") else "higher")
        assert score.unit == ("%" if metric in ("p_ids", "u_ids") else "")
