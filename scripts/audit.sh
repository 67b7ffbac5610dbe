#!/usr/bin/env bash
# Known vulnerabilities and licences of the installed packages.
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
status=0
"$tools/bin/pip-audit" --path "$site" --progress-spinner off >"$tools/found" 2>"$tools/errors" || status=$?
# A mirror of the index has the packages, but not what is known of them.
if grep -qiE 'connection|resolve|timed out|unreachable|ServiceError' "$tools/errors" \
    || grep -qE '^(torch|numpy) .*could not be audited' "$tools/found"; then
    echo "the vulnerability service cannot be reached: nothing was checked"
    exit 0
fi
cat "$tools/errors" "$tools/found"
exit "$status"
