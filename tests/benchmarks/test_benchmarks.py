"""The benchmarks' own arithmetic: what is recorded, compared, and written on the page."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import disk, gpu, page, startup
from benchmarks.__main__ import main, without_output
from benchmarks.common import Settings, compared, interleaved
from benchmarks.limits import Products, is_product
from sdm_lightning.cli.main import main as sdm


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


class TestGpuRun:
    def test_a_part_that_ends_in_time(self, tmp_path: Path) -> None:
        log = tmp_path / "log.txt"
        assert gpu.run(["-c", "print('said'); raise SystemExit(3)"], log, 60) == 3
        assert log.read_text() == "said\n"

    def test_a_part_whose_time_is_over_is_asked_to_save(self, tmp_path: Path) -> None:
        code = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
            "time.sleep(100)\n"
        )
        process = gpu.start(["-c", "import time; time.sleep(100)"], tmp_path / "a.txt")
        assert gpu.stop(process, 1.0) == -15
        assert gpu.run(["-c", code], tmp_path / "b.txt", 5.0) == gpu.PREEMPTED

    def test_images_behind_the_newest_checkpoint(self, tmp_path: Path) -> None:
        assert gpu.images_seen(tmp_path) == 0
        torch.save({"images_seen": 640}, tmp_path / "last.ckpt")
        assert gpu.images_seen(tmp_path) == 640

    def test_no_gpu_is_said_at_once(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(SystemExit):
            gpu.main([])
        assert "no CUDA device here" in capsys.readouterr().err


@pytest.mark.parametrize("output", [["--output", "/tmp/lines.jsonl"], ["--output=lines.jsonl"], []])
def test_a_lines_command_leaves_out_where_lines_are_written(output: list[str]) -> None:
    assert without_output(["data", *output, "--rounds", "3"]) == ["data", "--rounds", "3"]
