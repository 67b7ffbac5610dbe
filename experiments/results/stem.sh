#!/bin/sh
# Table 1's rows with the stem's weights for masks, uncertainty and time started at random and at zero
# (docs/observations.md, "Pixels that earlier iterations filled"). Half an hour of one core; called
# again, it continues where it stopped. Needs the shards that experiments/results/study.sh makes.
#   SEEDS="0 1" sh experiments/results/stem.sh
set -eu
export OMP_NUM_THREADS=1
PYTHON="${PYTHON:-python}"
sdm() { "$PYTHON" -m sdm_lightning "$@"; }

for seed in ${SEEDS:-0 1}; do for row in A B C D E F; do for zero in false true; do
  name="$row-$zero-seed$seed"
  [ -f "runs/stem/$name/done" ] && continue
  set -- --config configs/model/sdm_256.yaml --config configs/data/places2_256.yaml \
    --config configs/trainer/default.yaml --config configs/logger/wandb.yaml \
    --config configs/scale/cpu.yaml --config experiments/table1/cpu.yaml \
    --config "experiments/table1/$row.yaml" --evaluation.facts.scale cpu --evaluation.facts.table stem \
    --model.generator.init_args.zero_state_channels "$zero" \
    --runs_dir runs/stem --name "$name" --seed_everything "$seed"
  sdm fit "$@" --budget.max_images 2048 --ckpt_path auto
  for iterations in 1 3 4; do
    sdm test "$@" --ckpt_path last --model.test_iterations "$iterations"
  done
  touch "runs/stem/$name/done"
done; done; done
