"""The summary of pip-audit: it never calls clean what was not checked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "audit_summary.py"
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited"}
CLEAN = {"name": "numpy", "version": "2.5", "vulns": []}
FAULTY = {
    "name": "pillow",
    "version": "10.2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["10.3"]}, {"id": "PYSEC-2", "fix_versions": []}],
}


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        ([SKIPPED], 3, "nothing was checked: the service knows none of 1 packages\n"),
        (None, 3, "nothing was checked: ERROR: cannot connect\n"),
        ([CLEAN], 0, "1 of 1 packages checked; not known to the service: none\n"),
        ([CLEAN, SKIPPED], 0, "1 of 2 packages checked; not known to the service: torch\n"),
        (
            [CLEAN, FAULTY],
            1,
            "pillow 10.2: PYSEC-1, fixed in 10.3\npillow 10.2: PYSEC-2, fixed in no release\n"
            "2 of 2 packages checked; not known to the service: none\n",
        ),
    ],
)
def test_summary(tmp_path, found, status, says):
    report, errors = tmp_path / "found.json", tmp_path / "errors"
    report.write_text("" if found is None else json.dumps({"dependencies": found}))
    errors.write_text("WARNING: slow\nERROR: cannot connect\n")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(report), str(errors)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (status, says)
