#!/bin/sh
# Table 1's rows on photos, 64x64, 150,000 images a run, and Table 2 of the models that it trains.
# PACKAGES is a folder of unpacked packages (see prepare.py), needed the first time. Called again, it
# continues where it stopped.
#   PACKAGES=packages SEEDS="0 1" ROWS="A B C D" WORKERS=1 sh experiments/photos/study.sh
set -eu
PYTHON="${PYTHON:-python}"
sdm() { "$PYTHON" -m sdm_lightning "$@"; }
here="$(dirname "$0")"

if [ ! -f runs/photos/photos.json ]; then
  "$PYTHON" "$here/prepare.py" runs/photos --packages "${PACKAGES:?a folder of unpacked packages, see prepare.py}"
fi
[ -f runs/photos/shards/train/index.json ] || sdm shards runs/photos/train runs/photos/shards/train
[ -f runs/photos/shards/test/index.json ] || sdm shards runs/photos/test runs/photos/shards/test --shuffle false

# One seed of every row before the next seed; a failed cell does not keep the others from running.
for seed in ${SEEDS:-0 1}; do
  rows=$(for row in ${ROWS:-A B C D}; do printf '%s-seed%s,' "$row" "$seed"; done)
  sdm sweep experiments/sweeps/table1.yaml --scale photos --workers "${WORKERS:-1}" --only "$rows" || true
  for table in table2A table2B; do
    sdm sweep "experiments/sweeps/$table.yaml" --scale photos --workers "${WORKERS:-1}" --only "seed$seed" || true
  done
done
for metric in 'kid[efficientnet-lite2]' 'fid[efficientnet-lite2]' psnr_hole 'feature_distance[efficientnet-lite2]'; do
  sdm table table1 --scale photos --metrics "[\"$metric\"]"
done
