#!/bin/sh
# Mean fill and OpenCV's two methods on the study's test images and masks, scored like the study.
# study.sh makes these first. The scores go to cpu-baselines.jsonl.
set -eu
PYTHON="${PYTHON:-python}"
sdm() { "$PYTHON" -m sdm_lightning "$@"; }
images=runs/study/images/test
masks=runs/study/masks
results="${RESULTS:-$(dirname "$0")/cpu-baselines.jsonl}"

rm -f "$results"
for method in mean telea navier-stokes; do
  sdm baseline "$method" "$images" "$masks" "runs/study/baselines/$method"
  sdm evaluate "$images" "runs/study/baselines/$method" --masks "$masks" --method "$method" \
    --features random-conv --lpips null --ids false --protocol demo-photos-512x32-lama_thick --record "$results"
done
