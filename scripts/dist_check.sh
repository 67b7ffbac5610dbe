#!/usr/bin/env bash
# Wheel and sdist as a user gets them: built, installed into a clean environment, and run away from
# this checkout. PYTHON names the interpreter that builds.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-python3}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$python" -m venv "$out/env"
bin=$out/env/bin
"$bin/python" -m pip install -q build uv
"$bin/python" -m build -q --outdir "$out/dist" .
"$bin/uv" pip install -q --python "$bin/python" "$(ls "$out"/dist/*.whl)[dev]"
mkdir "$out/unpacked"
tar -xzf "$out"/dist/*.tar.gz -C "$out/unpacked" --strip-components 1
cd "$out"
"$bin/python" -c "import sdm_lightning; assert '$root' not in sdm_lightning.__file__, sdm_lightning.__file__"
"$bin/sdm" --version
"$bin/sdm" demo --minutes "${MINUTES:-0.2}" --output "$out/demo"
test -s "$out/demo/report.html"
# The tests of the sdist against the package of the wheel.
rm -rf "$out/unpacked/sdm_lightning"
cd "$out/unpacked"
"$bin/python" -m pytest -q -p no:cacheprovider --collect-only >/dev/null
"$bin/python" -m pytest -q -p no:cacheprovider tests/test_containers.py tests/diffusion tests/data/test_decode.py \
    tests/data/shards tests/inference/test_inpaint.py tests/fuzz
echo "wheel and sdist are whole:"
ls -l "$out/dist" | tail -n +2
