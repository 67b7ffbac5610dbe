"""The notebook of the documentation runs to its end and shows what its text says."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")

NOTEBOOK = Path(__file__).parents[2] / "docs" / "inpainter.ipynb"


def test_notebook():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    shares = [int(share) for share in re.findall(r"(\d+)% of the hole is known", text)]
    # Each hole is filled at the network's resolution, hence the tolerance.
    assert shares[:3] == pytest.approx([25, 50, 75], abs=3)
    assert shares[3:] == [100]
    assert float(re.search(r"rank correlation over the hole: ([-\d.]+)", text)[1]) > 0
    assert re.search(r"deviation in the hole: +[1-9]", text)
    assert re.search(r"deviation elsewhere: +0\.0\n", text)
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 4
