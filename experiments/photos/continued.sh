#!/bin/sh
# Table 1's rows A to E, each trained on from the packaged weights, and tested with 1 to 8 iterations
# (docs/paper-notes.md, "Rows that continue from the same weights"). For a core, where 150,000 images
# a run from random weights (study.sh) would take hours. Needs the shards that study.sh makes; called
# again, it continues where it stopped. (F and G are other networks, which these weights do not fit.)
#   SEEDS="0 1" ROWS="A B C D E" IMAGES=10000 sh experiments/photos/continued.sh
set -eu
export OMP_NUM_THREADS=1
PYTHON="${PYTHON:-python}"
sdm() { "$PYTHON" -m sdm_lightning "$@"; }

for seed in ${SEEDS:-0 1}; do for row in ${ROWS:-A B C D E}; do
  name="$row-seed$seed"
  [ -f "runs/continued/$name/done" ] && continue
  set -- --config configs/model/sdm_256.yaml --config configs/data/places2_256.yaml \
    --config configs/trainer/default.yaml --config configs/logger/wandb.yaml \
    --config configs/scale/photos.yaml --config experiments/table1/photos.yaml \
    --config "experiments/table1/$row.yaml" --evaluation.facts.scale continued \
    --evaluation.cache runs/continued/features --trainer.accelerator cpu --data.num_workers 0 \
    --runs_dir runs/continued --name "$name" --seed_everything "$seed"
  sdm fit "$@" --start_from demo --budget.max_images "${IMAGES:-10000}" --ckpt_path auto \
    --model.optimizer_g.lr 3e-4 --model.optimizer_d.lr 3e-4
  for iterations in ${ITERATIONS:-1 2 3 8}; do
    case "$row$iterations" in A3 | B1 | C2 | D3 | E3) table=table1 ;; *) table=continued ;; esac
    sdm test "$@" --ckpt_path last --model.test_iterations "$iterations" \
      --evaluation.facts.table "$table"
  done
  touch "runs/continued/$name/done"
done; done
sdm table table1 --scale continued --results '["runs/continued"]' \
  --metrics '["fid[efficientnet-lite2]", "kid[efficientnet-lite2]", "psnr_hole"]'
