"""What ``wandb sync`` would send: the records of an offline run's file, read without a server.

The file is a LevelDB log (blocks of 32 KiB; each piece with checksum, length and kind) of protobuf
messages, behind wandb's own seven bytes.
"""

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """One run as W&B would show it."""

    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def messages(content: bytes):
    """Protobuf messages of a LevelDB log, pieces put together."""
    if len(content) < HEADER:
        return  # not written yet
    assert content[:4] == b":W&B"
    position, message = HEADER, b""
    while position + HEADER <= len(content):
        left_in_block = BLOCK - position % BLOCK
        if left_in_block < HEADER:
            position += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if kind not in (FULL, FIRST, MIDDLE, LAST):
            return
        position += HEADER
        message += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


def items(pairs) -> dict[str, Any]:
    return {
        ".".join(pair.nested_key) if pair.nested_key else pair.key: json.loads(pair.value_json)
        for pair in pairs
    }


def finished_records(path: Path, seconds: float = 60) -> list[Any]:
    """All records of a run; W&B's own process may write the last after the run has finished."""
    end = time.monotonic() + seconds
    while True:
        records = list(messages(path.read_bytes()))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        assert time.monotonic() < end, f"{path}: no exit record after {seconds} s"
        time.sleep(0.1)


def read_offline_runs(run_directory: Path) -> list[OfflineRun]:
    """All W&B runs of a run directory, oldest first."""
    runs = []
    # Not by name: two runs of one second differ in a random part of theirs only.
    files = run_directory.glob("wandb/offline-run-*/run-*.wandb")
    for path in sorted(files, key=lambda file: file.stat().st_mtime_ns):
        run = OfflineRun()
        for record in finished_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run.name, run.group = record.run.display_name, record.run.run_group
                run.job_type, run.tags = record.run.job_type, list(record.run.tags)
                run.config |= items(record.run.config.update)
            elif kind == "config":
                run.config |= items(record.config.update)
            elif kind == "history":
                run.history.append(items(record.history.item))
                run.summary |= run.history[-1]  # W&B keeps the last value of everything
            elif kind == "summary":
                run.summary |= items(record.summary.update)
            elif kind == "exit":
                run.exit_code = record.exit.exit_code
        runs.append(run)
    return runs
