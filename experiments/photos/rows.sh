#!/bin/sh
# Table 1's rows on photos, 64x64, from random weights, or with START=demo from the packaged ones
# (docs/observations.md, "Rows from random weights"), tested with 1 to 8 iterations. PACKAGES is a folder of
# unpacked packages (see prepare.py), needed the first time. Called again, it continues where it
# stopped; with more IMAGES, the same runs train on and are tested again.
#   PACKAGES=packages SEEDS="0 1" ROWS="A B C D E F G" IMAGES=150000 sh experiments/photos/rows.sh
#   START=demo ROWS="A B C D E" IMAGES=10000 sh experiments/photos/rows.sh
# (F and G are other networks, which the packaged weights do not fit.) OPTIONS changes the rows, under
# another name:
#   START=demo ROWS=A NAME=adversarial-0.1 OPTIONS="--model.losses.adversarial 0.1" IMAGES=10000 \
#     sh experiments/photos/rows.sh
set -eu
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
PYTHON="${PYTHON:-python}"
sdm() { "$PYTHON" -m sdm_lightning "$@"; }
here="$(dirname "$0")"

if [ ! -f runs/photos/shards/test/index.json ]; then
  "$PYTHON" "$here/prepare.py" runs/photos --packages "${PACKAGES:?a folder of unpacked packages, see prepare.py}"
  sdm shards runs/photos/train runs/photos/shards/train
  sdm shards runs/photos/test runs/photos/shards/test --shuffle false
fi

images="${IMAGES:-150000}"
scale=random start='' where="{\"images_seen\": $images}"
if [ -n "${START:-}" ]; then
  scale=continued where='{}'
  start="--start_from $START --model.optimizer_g.lr 3e-4 --model.optimizer_d.lr 3e-4"
fi
runs="runs/$scale"
# One seed of every row before the next seed.
for seed in ${SEEDS:-0 1}; do for row in ${ROWS:-A B C D}; do
  name="$row${NAME:+-$NAME}-seed$seed"
  [ -f "$runs/$name/done-$images" ] && continue
  set -- --config configs/model/sdm_256.yaml --config configs/data/places2_256.yaml \
    --config configs/trainer/default.yaml --config configs/logger/wandb.yaml \
    --config configs/scale/photos.yaml --config experiments/table1/photos.yaml \
    --config "experiments/table1/$row.yaml" --evaluation.facts.scale "$scale" \
    --evaluation.cache "$runs/features" --trainer.accelerator cpu --data.num_workers 0 \
    --runs_dir "$runs" --name "$name" --seed_everything "$seed"
  # shellcheck disable=SC2086  # several options
  set -- "$@" ${OPTIONS:-}
  # shellcheck disable=SC2086
  sdm fit "$@" --budget.max_images "$images" --ckpt_path auto $start
  for iterations in ${ITERATIONS:-1 2 3 8}; do
    case "$row${NAME:-}$iterations" in [ADEFG]3 | B1 | C2) table=table1 ;; *) table="$scale" ;; esac
    sdm test "$@" --ckpt_path last --model.test_iterations "$iterations" \
      --evaluation.facts.table "$table"
  done
  touch "$runs/$name/done-$images"
done; done
sdm table table1 --scale "$scale" --results "[\"$runs\"]" --where "$where" \
  --metrics '["fid[efficientnet-lite2]", "kid[efficientnet-lite2]", "psnr_hole"]'
