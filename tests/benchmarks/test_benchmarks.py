"""The benchmarks' own arithmetic: what is recorded, compared, and written on the page."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from benchmarks import disk, gpu, page, startup
from benchmarks.__main__ import EXTRA, SECTIONS, main, section, without_output
from benchmarks.common import Settings, compared, interleaved
from benchmarks.limits import Products, is_product
from sdm_lightning.cli.main import main as sdm
from sdm_lightning.errors import PREEMPTED


class TestProducts:
    def test_forward_and_backward_are_recorded_and_nothing_else(self) -> None:
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2), nn.Softmax(1)
        )
        x = torch.rand(2, 3, 8, 8)
        forward = Products(lambda: network(x).sum().item())
        assert [call[0]._schema.name for call in forward.calls] == [
            "aten::convolution", "aten::addmm",
        ]  # fmt: skip
        both = Products(lambda: network(x).sum().backward())
        # Backward: one call for the convolution, two products for the linear layer.
        assert [call[0]._schema.name for call in both.calls[2:]] == [
            "aten::mm", "aten::mm", "aten::convolution_backward",
        ]  # fmt: skip
        both()

    def test_inference_mode_is_recorded_too(self) -> None:
        layer, attention = nn.Linear(4, 4), nn.functional.scaled_dot_product_attention
        x = torch.rand(1, 1, 5, 4)

        def work() -> None:
            with torch.inference_mode():
                attention(layer(x), x, x)

        assert len(Products(work)) == 2

    def test_stand_ins_have_the_shape_and_layout_of_what_they_stand_for(self) -> None:
        x = torch.rand(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
        kernel = torch.rand(3, 3).expand(8, 1, 3, 3)
        ((_, arguments, _),) = Products(lambda: torch.conv2d(x, kernel, groups=8)).calls
        assert arguments[0].stride() == x.stride()
        assert arguments[1].stride() == kernel.stride()
        assert arguments[1].shape == kernel.shape

    def test_names(self) -> None:
        assert is_product("aten::convolution_backward")
        assert is_product("aten::_scaled_dot_product_flash_attention")
        assert not is_product("aten::mul")
        assert not is_product("aten::mm_like")


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    line = compared("s", "n", "s", [2.0, 30.0, 3.0], [1.0, 10.0, 1.0], "limit")
    assert (line["value"], line["limit"], line["ratio"], line["pairs"]) == (3.0, 1.0, 3.0, 3)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux")
def test_the_peak_is_that_of_the_work() -> None:
    # In a process of its own: here the allocator may hold freed memory from other tests.
    code = (
        "import torch; from benchmarks.common import peak_memory; "
        "print(*peak_memory(lambda: torch.ones(2**24)))"  # 64 MiB
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, above = (float(word) for word in done.stdout.split())
    assert 60 <= above <= 80
    assert peak > above


def test_works_take_turns() -> None:
    order: list[str] = []

    def work(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = interleaved([lambda: work("a"), lambda: work("b")], 2)
    assert "".join(order) == "ababab"
    assert found == [[3.0, 5.0], [4.0, 6.0]]


def test_a_section_gives_lines(tmp_path: Path) -> None:
    settings = Settings(torch.device("cpu"), 2, (64,), (32,), True, tmp_path)
    save, load = disk.run(settings)
    assert save["section"] == load["section"] == "checkpoint"
    assert save["name"].startswith("save, ")
    assert load["limit_name"] == "read"


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["genrator"])
    assert "unknown section 'genrator'" in capsys.readouterr().err


def test_the_committed_page_is_made_from_the_committed_lines() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page()


def test_the_training_whose_start_is_timed_has_valid_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(startup.ROOT)
    with pytest.raises(SystemExit) as stop:
        sdm([*startup.fit_words(tmp_path / "shards", tmp_path / "runs"), "--print_config"])
    assert not stop.value.code, capsys.readouterr().err


def test_the_time_of_an_import_is_found() -> None:
    report = "import time: self [us] | cumulative | imported package\nimport time: 7 | 9 |   a.b\n"
    assert startup.cumulative(f"{report}import time:  1 |  20 | a\n", "a") == 20
    assert startup.cumulative(report, "a.b") == 9


def test_the_step_on_many_gpus() -> None:
    assert page.step_on(1, 2.0) == (0.0, 1.0)
    gradients = 4 * 102.64e6
    seconds, efficiency = page.step_on(8, 2.0)
    assert seconds == pytest.approx(2 * 7 / 8 * 2 * gradients / 350e9)
    assert efficiency == pytest.approx(0.4 / (0.4 + seconds))
    assert page.step_on(16, 2.0)[0] == pytest.approx(2 * 15 / 16 * 2 * gradients / 40e9)


def test_the_cost_of_the_data_is_that_of_the_stream() -> None:
    def line(section: str, name: str, value: float, **more: float) -> dict[str, Any]:
        return {"section": section, "name": name, "value": value, **more}

    lines = [
        line("data", "an image of the stream (crop 256), no workers", 5.0),
        line("data", "an image of the stream (crop 256), no workers", 2.5),
        line("data", "an image of the stream (crop 256), no workers, simplejpeg", 1.0),
        line("evaluation", "an image of sdm evaluate, no workers", 200.0),
        line("scale", "bytes all-reduced in a step, 2 processes", 1.3, ratio=1.0),
    ]
    text = page._many_gpus({("", "", "", str(n)): found for n, found in enumerate(lines)})
    assert "costs 2.5 ms of one core" in text
    assert "| 1 | 0.0 | 100 % | 20 | 2 | 0.02 | 0.05 |" in text


PYTEST = """\
collecting ... collected 6 items / 1 deselected / 5 selected

tests/gpu/test_gpu.py::test_one PASSED [ 20%]
tests/gpu/test_gpu.py::test_two FAILED [ 40%]
tests/gpu/test_gpu.py:58: in test_two
E   AssertionError: a FAILED comparison
tests/gpu/test_gpu.py::test_three SKIPPED (needs more memory) [ 60%]
tests/gpu/test_gpu.py::test_four """


class TestGpuRun:
    def test_a_part_that_ends_in_time(self, tmp_path: Path) -> None:
        log, summary = tmp_path / "log.txt", {"cut": []}
        process = gpu.start(["-c", "print('said'); raise SystemExit(3)"], log)
        assert gpu.stop(process, 60, 1, "part", summary) == 3
        assert log.read_text() == "said\n"
        assert not summary["cut"]

    def test_a_part_whose_time_is_over_is_asked_to_save(self, tmp_path: Path) -> None:
        code = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
            "print('ready')\n"
            "time.sleep(100)\n"
        )
        summary: dict[str, Any] = {"cut": []}
        process = gpu.start(["-c", "import time; time.sleep(100)"], tmp_path / "a.txt")
        assert gpu.stop(process, 1.0, 30, "tests", summary) == -15
        process = gpu.start(["-c", code], tmp_path / "b.txt")
        while "ready" not in (tmp_path / "b.txt").read_text():
            time.sleep(0.05)
        assert gpu.stop(process, 1.0, 30, "fit", summary) == PREEMPTED
        assert summary["cut"] == ["tests", "fit"]

    def test_one_that_does_not_end_is_killed(self, tmp_path: Path) -> None:
        code = "import signal; signal.signal(signal.SIGTERM, lambda *_: 0); print(1)\nwhile 1: pass"
        process = gpu.start(["-c", code], tmp_path / "log.txt")
        while not (tmp_path / "log.txt").read_text():
            time.sleep(0.05)
        assert gpu.stop(process, 1.0, 0.2, "bench", {"cut": []}) == -9

    def test_verdicts_of_a_cut_run(self) -> None:
        assert gpu.read_tests(PYTEST) == {
            "passed": 1, "failed": ["tests/gpu/test_gpu.py::test_two"], "skipped": 1,
            "not_reached": 2,
        }  # fmt: skip
        assert gpu.read_tests("ERROR tests/gpu/test_gpu.py - ImportError: no torch\n") == {
            "passed": 0, "failed": ["tests/gpu/test_gpu.py"], "skipped": 0, "not_reached": None,
        }  # fmt: skip

    def test_a_failure_is_told_before_the_end(self, tmp_path: Path) -> None:
        shutil.copy(gpu.ROOT / "tests" / "gpu" / "conftest.py", tmp_path)
        (tmp_path / "test_it.py").write_text(
            "import os\ndef test_a(): assert 1 == 2\ndef test_b(): os._exit(9)\n"
        )
        options = ["-v", "--tb=short", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
        process = gpu.start(["-m", "pytest", *options, str(tmp_path)], tmp_path / "tests.txt")
        assert process.wait() == 9
        text = (tmp_path / "tests.txt").read_text()
        assert "assert 1 == 2" in text
        found = gpu.read_tests(text)
        assert [name.partition("::")[2] for name in found["failed"]] == ["test_a"]
        assert found["not_reached"] == 1

    def test_what_failed(self) -> None:
        good: dict[str, Any] = {
            "device": "cuda",
            "cut": [],
            "errors": {},
            "tests": {"status": 0, "passed": 11, "failed": []},
            "bench": {"status": 0, "figures": {"training": 3}},
            "fit": {"status": PREEMPTED, "images_before": 0, "images_after": 64},
        }
        assert gpu.failures(good) == []
        cut = {"tests": good["tests"] | {"status": -15}, "bench": good["bench"] | {"status": -15}}
        cut["fit"] = good["fit"] | {"status": -15}
        assert gpu.failures(good | cut | {"cut": ["tests", "bench"]}) == []
        for changed, said in (
            ({"errors": {"shards": "OSError: full"}}, "shards: OSError: full"),
            ({"tests": good["tests"] | {"status": -15, "failed": ["a::b"]}, "cut": ["tests"]},
             "tests: a::b"),
            ({"tests": good["tests"] | {"status": 4}}, "tests: pytest ended with status 4"),
            ({"tests": good["tests"] | {"passed": 0}}, "tests: none passed"),
            ({"bench": good["bench"] | {"status": 1}}, "bench: it ended with status 1"),
            ({"bench": {"status": 0, "figures": {}}}, "bench: nothing was measured"),
            ({"fit": good["fit"] | {"status": 2}}, "fit: it ended with status 2"),
            ({"fit": good["fit"] | {"images_before": 64}}, "fit: trained on no image"),
        ):  # fmt: skip
            assert gpu.failures(good | changed) == [said]

    def test_the_newest_checkpoint_that_can_be_read(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert gpu.newest(tmp_path) == {}
        (tmp_path / "last.ckpt").write_bytes(b"cut short")
        assert gpu.newest(tmp_path) == {}
        assert "can be read" in capsys.readouterr().out
        torch.save({"images_seen": 640}, tmp_path / "earlier.ckpt")
        os.utime(tmp_path / "earlier.ckpt", (1, 1))
        with pytest.warns(UserWarning, match="trying the one before"):
            assert gpu.newest(tmp_path)["images_seen"] == 640

    def test_the_speed_is_that_of_this_call_without_its_start(self, tmp_path: Path) -> None:
        assert gpu.steady_speed(tmp_path / "metrics.csv", 0) is None
        rows = [(100, 900), (200, 10), (300, 50), (400, ""), (400, 52), (500, 54)]
        text = "images_seen,step,train/images_per_second\n"
        text += "".join(f"{seen},1,{speed}\n" for seen, speed in rows)
        (tmp_path / "metrics.csv").write_text(text)
        assert gpu.steady_speed(tmp_path / "metrics.csv", 100) == 52

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    @pytest.mark.parametrize("config", [[], ["--config", "configs/model/demo.yaml"]])
    def test_the_training_has_valid_settings(
        self,
        device: str,
        config: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(gpu.ROOT)
        arguments = argparse.Namespace(device=device, fit=[*config, "--data.batch_size=4"])
        splits = {split: tmp_path / split for split in ("train", "val", "test")}
        words = gpu.fit_words(arguments, splits, tmp_path)[2:]
        assert any(word.endswith("trainer/cpu.yaml") for word in words) is not bool(config)
        with pytest.raises(SystemExit) as stop:
            sdm([*words, "--print_config"])
        shown = capsys.readouterr()
        assert not stop.value.code, shown.err
        settings = yaml.safe_load(shown.out)
        assert settings["data"]["batch_size"] == 4  # what is asked for comes last
        assert settings["data"]["val"].endswith("val")
        assert settings["trainer"]["callbacks"][-1]["class_path"] == "benchmarks.speed.Speed"
        if device == "cuda":
            assert settings["trainer"]["precision"] == "bf16-mixed"

    def test_an_error_in_a_part_is_in_the_summary(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And the parts after it run."""

        def fail(*_: Any) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(gpu, "training_shards", fail)
        monkeypatch.setattr(gpu, "measure", fail)
        monkeypatch.setattr(gpu, "start", lambda words, log: log.write_text(PYTEST))
        monkeypatch.setattr(gpu, "stop", lambda *_: 1)
        assert gpu.main(["--device", "cpu", "--output", str(tmp_path)]) == 1
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary["errors"] == {"shards": "OSError: disk full", "bench": "OSError: disk full"}
        assert summary["tests"]["not_reached"] == 2
        assert "tests: tests/gpu/test_gpu.py::test_two" in summary["failures"]

    def test_what_cannot_work_is_said_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        damaged = tmp_path / "damaged.ckpt"
        damaged.write_bytes(b"cut short")
        for words, said in (
            ([], "no CUDA device here"),
            (["--device", "cpu", "--checkpoint", str(damaged)], "cannot be read as a checkpoint"),
            (["--device", "cpu", "--checkpoint", str(tmp_path / "no.ckpt")], "no.ckpt"),
        ):
            with pytest.raises(SystemExit):
                gpu.main([*words, "--output", str(tmp_path / "out")])
            assert said in capsys.readouterr().err
        monkeypatch.setitem(gpu.PACKAGES, "no_such_package", "no-such-package")
        with pytest.raises(SystemExit):
            gpu.main(["--device", "cpu"])
        assert "missing: no-such-package; install" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_the_check_of_packages_needs_none(self) -> None:
        code = "import sys, benchmarks.gpu as g; print(g.missing()); print('torch' in sys.modules)"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=gpu.ROOT)
        assert done.stdout == "[]\nFalse\n"


def test_some_sections_read_no_data(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['webdataset'] = sys.modules['braceexpand'] = None\n"
        "from benchmarks.__main__ import SECTIONS, section\n"
        "for name in ('generator', 'memory', 'checkpoint'): section(SECTIONS[name])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=gpu.ROOT)


def test_every_section_is_there_and_extra_ones_are_named_on_the_page() -> None:
    for place in (SECTIONS | EXTRA).values():
        assert callable(section(place))
    assert f"python -m benchmarks {' '.join(EXTRA)}" in page.INTRODUCTION.replace("\n", " ")


@pytest.mark.parametrize("output", [["--output", "/tmp/lines.jsonl"], ["--output=lines.jsonl"], []])
def test_a_lines_command_leaves_out_where_lines_are_written(output: list[str]) -> None:
    assert without_output(["data", *output, "--rounds", "3"]) == ["data", "--rounds", "3"]
