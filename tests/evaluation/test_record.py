import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdm_lightning.errors import InputError
from sdm_lightning.evaluation import Evaluation, append_record, make_record
from sdm_lightning.reports.results import read_result_lines

EVALUATION = Evaluation(
    metrics={"fid[random-conv]": 1.25, "psnr": math.inf},
    counts={"fid[random-conv]": 3, "psnr": 3},
    num_images=3,
    refused={"p_ids[random-conv]": "3 pairs"},
)


def test_metrics_carry_the_protocol_and_the_line_is_strict_json(tmp_path):
    record = make_record(EVALUATION, "places36500-512-large", 1.5, seed=7)
    append_record(tmp_path / "runs" / "r.jsonl", record)
    text = (tmp_path / "runs" / "r.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert line["metrics"]["fid[random-conv]/places36500-512-large"] == 1.25
    assert float(line["metrics"]["psnr/places36500-512-large"]) == math.inf
    assert line["refused"] == {"p_ids[random-conv]/places36500-512-large": "3 pairs"}
    assert line["seed"] == 7
    assert line["wall_seconds"] == 1.5
    assert {"torch", "torchmetrics", "sdm-lightning", "python"} <= line["versions"].keys()
    assert line["hardware"]["cores"] >= 1
    assert line["time"].endswith("+00:00")


def test_a_path_that_is_not_utf8_is_recorded(tmp_path):
    append_record(tmp_path / "r.jsonl", {"metrics": {}, "fake": {"path": "caf\udce9"}})
    assert read_result_lines(tmp_path / "r.jsonl")[0]["fake"] == {"path": "caf\udce9"}


def test_a_line_cut_short_spoils_no_other(tmp_path):
    file = tmp_path / "r.jsonl"
    append_record(file, {"metrics": {}, "a": 1})
    with file.open("a") as stream:
        stream.write('{"metrics": {}, "a": 2, "b"')
    append_record(file, {"metrics": {}, "a": 3})
    assert [record["a"] for record in read_result_lines(file)] == [1, 3]


def test_many_writers_lose_nothing(tmp_path):
    file = tmp_path / "r.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: append_record(file, {"metrics": {}, "i": i, "pad": "x" * 5000}), range(40)
            )
        )
    assert sorted(record["i"] for record in read_result_lines(file)) == list(range(40))


def test_a_full_disk_leaves_no_half_line(tmp_path, room_for):
    file = tmp_path / "r.jsonl"
    append_record(file, {"metrics": {}, "a": 1})
    before = file.read_bytes()
    with room_for(len(before) + 10), pytest.raises(OSError, match=r"r\.jsonl"):
        append_record(file, {"metrics": {}, "a": 2})
    assert file.read_bytes() == before


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_result_lines(tmp_path / "none.jsonl")
