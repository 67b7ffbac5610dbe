"""YAML and JSON lines from outside: nothing runs, nothing hangs, one line says what is wrong."""

import json
import logging
from pathlib import Path

import pytest

from sdm_lightning.cli.configs import read_config_files
from sdm_lightning.errors import InputError, parse_yaml
from sdm_lightning.reports.results import metric_values, read_result_lines
from sdm_lightning.sweeps.grid import read_sweep


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: !!python/object/apply:os.system ['touch ran']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: 2020-99-99", "month must be in 1..12"),
        ("a: !!int ''", "IndexError"),
        ("a: !!timestamp x", "AttributeError"),
        ("- " * 5000, "RecursionError"),
        ("a: " + "9" * 5000, "4300"),
        ("\x00", "not allowed"),
    ],
)
def test_yaml_that_is_made_to_harm(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"(?s)config file 'c\.yaml': not YAML: .*({says})"):
        read_config_files(["--config", "c.yaml"])
    with pytest.raises(InputError, match=r"c\.yaml: not valid YAML"):
        read_sweep("c.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]


def test_aliases_as_people_use_them() -> None:
    assert parse_yaml("a: &x {lr: 1}\nb: {<<: *x, k: 2}") == {
        "a": {"lr": 1},
        "b": {"lr": 1, "k": 2},
    }


def test_result_lines_half_written_or_of_another_program(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"metrics": {"fid/x": 1.5, "psnr/x": "inf"}, "seed": 3, "method": "a\u2028b"}
    foreign = [
        "{", "[1]", "3", '{"metrics": 5}', '{"metrics": {"fid/x": null}}',
        '{"metrics": {"fid/x": "low"}}', '{"metrics": {}, "seed": [1]}',
        "[" * 100_000, '{"metrics": {"fid/x": ' + "9" * 5000 + "}}",
    ]  # fmt: skip
    path = tmp_path / "results.jsonl"
    whole = json.dumps(good, ensure_ascii=False)
    lines = [whole, *foreign, whole, whole[:20]]
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    with caplog.at_level(logging.WARNING):
        found = read_result_lines(path)
    assert found == [good, good]
    assert metric_values(found[0]) == {"fid": 1.5, "psnr": float("inf")}
    assert f"left out {len(foreign) + 2} lines that are no whole results" in caplog.text
