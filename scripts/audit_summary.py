"""Say what pip-audit found and how much it looked at: audit_summary.py FOUND.json ERRORS."""

import json
import sys
from pathlib import Path


def main(found: str, errors: str) -> int:
    """Return 0 if no checked package has a known fault, 1 if one has, 3 if none was checked."""
    try:
        packages = json.loads(Path(found).read_text())["dependencies"]
    except ValueError:  # it ended before it wrote anything
        packages = []
    checked = [package for package in packages if "vulns" in package]
    if not checked:
        lines = [] if packages else Path(errors).read_text().strip().splitlines()
        reason = lines[-1] if lines else f"the service knows none of {len(packages)} packages"
        print(f"nothing was checked: {reason}")
        return 3
    for package in checked:
        for fault in package["vulns"]:
            fixed = ", ".join(fault["fix_versions"]) or "no release"
            print(f"{package['name']} {package['version']}: {fault['id']}, fixed in {fixed}")
    skipped = [package["name"] for package in packages if "vulns" not in package]
    print(
        f"{len(checked)} of {len(packages)} packages checked; not known to the service: "
        f"{', '.join(skipped) or 'none'}"
    )
    return int(any(package["vulns"] for package in checked))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
