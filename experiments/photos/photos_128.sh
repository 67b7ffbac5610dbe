#!/bin/sh
# Trains the packaged weights photos-128: the demo's model and losses on windows of 128 pixels, from the
# demo weights (docs/paper-notes.md, "At 128 x 128"). A core sees some 9,500 images an hour. PACKAGES is
# a folder of unpacked packages (see prepare.py). Called again, it continues where it stopped.
#   PACKAGES=packages IMAGES=33048 sh experiments/photos/photos_128.sh
set -eu
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
PYTHON="${PYTHON:-python}"
sdm() { "$PYTHON" -m sdm_lightning "$@"; }
here="$(dirname "$0")"
data=runs/photos-128

if [ ! -f "$data/photos.json" ]; then
  "$PYTHON" "$here/prepare.py" "$data" --packages "${PACKAGES:?a folder of unpacked packages, see prepare.py}" \
    --size 128 --num_train 24000 --num_test 1100
fi
[ -f "$data/shards/train/index.json" ] || sdm shards "$data/train" "$data/shards/train"
[ -f "$data/shards/test/index.json" ] || sdm shards "$data/test" "$data/shards/test" --shuffle false

sdm fit --config configs/model/demo.yaml --config configs/data/demo.yaml --config configs/trainer/cpu.yaml \
  --data.train "$data/shards/train" --data.val "$data/shards/test" --data.test "$data/shards/test" \
  --data.resolution 128 --data.num_workers 0 --trainer.limit_val_batches 0 --trainer.max_steps -1 \
  --model.average.half_life_images 4000 --start_from demo --name photos-128-fit \
  --budget.max_images "${IMAGES:-33048}" --checkpoint.every_n_batches 250 --ckpt_path auto
sdm export runs/photos-128-fit runs/photos-128-fit/photos-128.safetensors --half true --discriminator true \
  --licence Apache-2.0 --overwrite true
