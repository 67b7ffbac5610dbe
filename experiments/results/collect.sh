#!/bin/sh
# The study's result lines, tables and figures from runs/cpu/ into this folder, without any manual step.
set -eu
PYTHON="${PYTHON:-python}"
sdm() { "$PYTHON" -m sdm_lightning "$@"; }
here="$(dirname "$0")"
for sweep in table1 table2A table2B table4 filled_train filled_B filled_B-image; do
  if [ -f "runs/cpu/$sweep/results.jsonl" ]; then
    cp "runs/cpu/$sweep/results.jsonl" "$here/cpu-$sweep.jsonl"
  fi
done
for table in table1 table2 table4; do
  sdm table $table --scale cpu --results "[\"$here\"]" --output "$here/cpu-$table.md"
  sdm figure $table --scale cpu --results "[\"$here\"]" --output "$here/figures"
done
# Which inputs harm the later iterations of a model trained with one.
if [ -f runs/cpu/table1/B-seed2/checkpoints/last.ckpt ]; then
  {
    echo "PSNR in the hole of model B (experiments/filled/inputs.py, 512 test windows)."
    for seed in 0 1 2; do
      printf '\nSeed %s\n\n' $seed
      "$PYTHON" "$here/../filled/inputs.py" "runs/cpu/table1/B-seed$seed/checkpoints/last.ckpt" \
        runs/study/images/test runs/study/masks
    done
  } > "$here/cpu-filled-inputs.md"
fi
# Does the predicted deviation track the error? This is what D loses, whatever its FID.
sdm table table1 --scale cpu --results "[\"$here\"]" --metrics '["uncertainty_error_correlation"]' \
  --output "$here/cpu-table1-uncertainty.md"
sdm figure fig7 --output "$here/figures"
of() { echo "\"$1\": \"runs/cpu/table1/$2-seed0/checkpoints/last.ckpt\""; }
if [ -f runs/cpu/table1/F-seed0/checkpoints/last.ckpt ]; then
  sdm figure fig5 --output "$here/figures" --num_images 4 --weights "{$(of 'B (1 it.)' B),
    $(of 'C (2 it.)' C), $(of 'D (- DPM)' D), $(of 'E (- CS)' E), $(of 'F (- UGA)' F), $(of A A)}"
fi
