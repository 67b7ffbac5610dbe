#!/usr/bin/env bash
# All tests with the oldest versions of all dependencies, in an environment of their own.
# The oldest Python too, where there is one: OLDEST names another.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=${OLDEST:-}
for candidate in python3.10 "$HOME"/.pyenv/versions/3.10.*/bin/python python3; do
    # Run, not looked up: pyenv has a command for every version, whether it is active or not.
    [ -n "$oldest" ] || ! "$candidate" -V >/dev/null 2>&1 || oldest=$candidate
done
# An environment of another Python than the one that is asked for is made anew.
if [ -n "${OLDEST:-}" ] && [ "$("$oldest" -V)" != "$(.venv-min/bin/python -V 2>/dev/null)" ]; then
    rm -rf .venv-min
fi
[ -x .venv-min/bin/uv ] || { "$oldest" -m venv .venv-min && .venv-min/bin/python -m pip install -q uv; }
.venv-min/bin/uv pip install -q --python .venv-min/bin/python --resolution lowest-direct -e '.[dev]'
echo "oldest versions on $(.venv-min/bin/python --version):"
.venv-min/bin/uv pip freeze -q --python .venv-min/bin/python | grep -iE '^(torch|torchvision|lightning|numpy|timm|pillow|wandb)==' | paste -sd ' '
exec .venv-min/bin/python -m pytest -q "$@"
