#!/usr/bin/env bash
# Known vulnerabilities and licences of the installed packages. Ends with status 1 if there is a
# vulnerability, and with 3 if nothing could be checked.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools"
"$tools/bin/python" -m pip install -q pip-audit pip-licenses
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "licences:"
"$tools/bin/pip-licenses" --python "$python" --summary --order count
echo "vulnerabilities:"
"$tools/bin/pip-audit" --path "$site" --progress-spinner off -f json >"$tools/found.json" 2>"$tools/errors" || true
# A mirror of the index has the packages, but not what is known of them: pip-audit then skips each
# and says "No known vulnerabilities found".
"$tools/bin/python" scripts/audit_summary.py "$tools/found.json" "$tools/errors"
