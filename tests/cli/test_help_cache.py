"""Help texts kept on disk."""

from pathlib import Path

import pytest

from sdm_lightning.cli import help_cache
from sdm_lightning.cli.help_cache import print_help


def show_one() -> None:
    """Behave as argparse does."""
    print("usage: sdm one [--größe N]")
    raise SystemExit(0)


def show_other() -> None:
    print("other")


def test_the_second_time_nothing_is_made(
    capsys: pytest.CaptureFixture[str], kept_help: Path
) -> None:
    print_help("one", show_one)
    first = capsys.readouterr().out
    print_help("one", show_other)
    assert capsys.readouterr().out == first == "usage: sdm one [--größe N]\n"
    print_help("two", show_other)
    assert capsys.readouterr().out == "other\n"
    assert not list(kept_help.glob("*.[0-9]*")), "a part of a file was left"


def test_a_change_makes_it_anew(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_help("changed", show_one)
    monkeypatch.setattr(help_cache, "version", lambda name: "999")
    print_help("changed", show_other)
    assert capsys.readouterr().out.endswith("\nother\n")
    monkeypatch.undo()


def test_a_narrower_terminal_has_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_help("wide", show_one)
    monkeypatch.setenv("COLUMNS", "50")
    print_help("wide", show_other)
    assert capsys.readouterr().out.endswith("\nother\n")


def test_failures_are_passed_on_and_not_kept(kept_help: Path) -> None:
    def fail() -> None:
        raise SystemExit(2)

    with pytest.raises(SystemExit, match="2"):
        print_help("failing", fail)
    assert not list(kept_help.glob("failing*"))


def test_a_folder_that_cannot_be_written_only_costs_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(help_cache, "_folder", lambda: tmp_path / "file" / "help")
    print_help("one", show_other)
    assert capsys.readouterr().out == "other\n"
