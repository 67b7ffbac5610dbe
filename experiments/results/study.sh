#!/bin/sh
# The whole small-scale study: images, shards, runs, tables. About four hours of one core; called
# again, it continues where it stopped. SEEDS="0 1 2" WORKERS=2 sh experiments/results/study.sh
set -eu
export OMP_NUM_THREADS=1  # one core; more threads change the last digits
PYTHON="${PYTHON:-python}"
sdm() { "$PYTHON" -m sdm_lightning "$@"; }

"$PYTHON" - <<'END'
from sdm_lightning.demo.photos import make_demo_images

make_demo_images("runs/study/images", size=32, num_train=12_000, num_test=512, num_workers=1)
END
[ -f runs/study/shards/train/index.json ] || sdm shards runs/study/images/train runs/study/shards/train
[ -f runs/study/shards/test/index.json ] || sdm shards runs/study/images/test runs/study/shards/test --shuffle false

masks=runs/study/masks  # those that the tests draw, as files
[ -f $masks/manifest.json ] || sdm masks $masks --images runs/study/images/test --preset lama_thick --size 32

# A failed cell must not keep the others from running; the tables show what is missing.
for seed in ${SEEDS:-0 1 2}; do
  rows=$(for row in A B C D E F; do printf '%s-seed%s,' $row "$seed"; done)
  sdm sweep experiments/sweeps/table1.yaml --scale cpu --workers ${WORKERS:-1} --only "$rows" || true
  sdm sweep experiments/sweeps/table4.yaml --scale cpu --workers ${WORKERS:-1} --only "seed$seed" || true
  sdm sweep experiments/sweeps/table2A.yaml --scale cpu --workers ${WORKERS:-1} --only "seed$seed" || true
  sdm sweep experiments/sweeps/table2B.yaml --scale cpu --workers ${WORKERS:-1} --only "seed$seed" || true
done
# Besides the paper's rows: what becomes of pixels that earlier iterations filled.
for sweep in filled_train filled_B filled_B-image; do
  sdm sweep experiments/filled/$sweep.yaml --scale cpu --workers ${WORKERS:-1} || true
done
here="$(dirname "$0")"
[ -f "$here/cpu-baselines.jsonl" ] || sh "$here/baselines.sh"
sh "$here/collect.sh"
