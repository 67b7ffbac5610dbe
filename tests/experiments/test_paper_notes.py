"""What docs/paper-notes.md says of the configs is what they say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows() -> dict[str, str]:
    """Question -> choice, of every table with these columns."""
    found = {}
    for line in (ROOT / "docs" / "paper-notes.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 3:
            found[cells[0].removeprefix("| ")] = cells[1]
    return found


def config(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return content


def test_minibatch_groups(rows: dict[str, str]) -> None:
    for name in ("sdm_512", "sdm_256"):
        model = config(f"configs/model/{name}.yaml")["model"]
        group = model["discriminator"]["init_args"]["mbstd_group"]
        assert rows["Minibatch statistics"].startswith(f"Groups of {group} in `configs/model/`")


def test_training_masks(rows: dict[str, str]) -> None:
    row = rows['Training masks, "rectangles and brush strokes"']
    for size in (256, 512):
        for data in ("places2", "celebahq"):
            masks = config(f"configs/data/{data}_{size}.yaml")["data"]["train_masks"]
            assert masks == f"mat{size}_large"
    assert "large setting at the matching resolution in `configs/data/`" in row
    for table, size in (("table3", 512), ("tableD3", 256)):
        masks = config(f"experiments/{table}/paper.yaml")["data"]["train_masks"]
        assert masks == {f"mat{size}_large": 1, f"mat{size}_small": 1}
        assert "1 : 1 in Tables 3 and D.3 (`experiments/table3/`" in row
    assert "train_masks" not in config("experiments/table1/paper.yaml")["data"]


def test_r1_and_archives(rows: dict[str, str]) -> None:
    losses = config("configs/model/sdm_512.yaml")["model"]["losses"]
    expected = (
        f"gamma {losses['r1_gamma']:g}, every {losses['r1_interval']} batches, first in batch"
    )
    assert rows["R1"].startswith(f"{expected} {losses['r1_interval']} ")
    header = (ROOT / "configs" / "data" / "places2_256.yaml").read_text()
    assert "DOWNLOADED/data_large" in header
    assert "DOWNLOADED/val_large" in header
    assert rows["Archive at 256x256"].startswith("The large one")
    train = config("experiments/table1/paper.yaml")["data"]["train"]
    assert train == "shards/places365-standard-train"
    assert "Places365-Standard (`experiments/table1/paper.yaml`)" in rows["Archive at 256x256"]
