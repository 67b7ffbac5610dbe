#!/bin/sh
# The study's result lines, tables and curve from runs/cpu/ into this folder, nothing typed by hand.
set -eu
PYTHON="${PYTHON:-python}"
here="$(dirname "$0")"
for sweep in table1 table2A table2B table4; do
  if [ -f "runs/cpu/$sweep/results.jsonl" ]; then
    cp "runs/cpu/$sweep/results.jsonl" "$here/cpu-$sweep.jsonl"
  fi
done
for table in table1 table2 table4; do
  "$PYTHON" -m sdm_lightning table $table --scale cpu --results "[\"$here\"]" --output "$here/cpu-$table.md"
done
"$PYTHON" -m sdm_lightning figure table2 --scale cpu --results "[\"$here\"]" --output "$here/figures"
"$PYTHON" -m sdm_lightning figure fig7 --output "$here/figures"
