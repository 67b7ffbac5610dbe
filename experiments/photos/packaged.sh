#!/bin/sh
# Trains the packaged weights on, as they were trained last (docs/observations.md, "The packaged weights"):
# demo on windows of 64 pixels, photos-128 on windows of 128. A core sees some 22,000 and 10,000 images
# an hour. PACKAGES is a folder of unpacked packages (see prepare.py). Called again, it continues
# where it stopped; the result is runs/NAME-fit/NAME.safetensors.
#   PACKAGES=packages NAME=photos-128 IMAGES=10000 sh experiments/photos/packaged.sh
set -eu
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
PYTHON="${PYTHON:-python}"
sdm() { "$PYTHON" -m sdm_lightning "$@"; }
here="$(dirname "$0")"
name="${NAME:-photos-128}"
case "$name" in
  demo) data=runs/photos size=64 train=60000 test=2200 ;;
  photos-128) data=runs/photos-128 size=128 train=24000 test=1100 ;;
  *) echo "NAME is $name; the packaged weights are demo and photos-128" >&2; exit 2 ;;
esac

if [ ! -f "$data/photos.json" ]; then
  "$PYTHON" "$here/prepare.py" "$data" --packages "${PACKAGES:?a folder of unpacked packages, see prepare.py}" \
    --size "$size" --num_train "$train" --num_test "$test"
fi
[ -f "$data/shards/train/index.json" ] || sdm shards "$data/train" "$data/shards/train"
[ -f "$data/shards/test/index.json" ] || sdm shards "$data/test" "$data/shards/test" --shuffle false

sdm fit --config configs/model/demo.yaml --config configs/data/demo.yaml --config configs/trainer/cpu.yaml \
  --data.train "$data/shards/train" --data.val "$data/shards/test" --data.test "$data/shards/test" \
  --data.resolution "$size" --data.num_workers 0 --trainer.limit_val_batches 0 --trainer.max_steps -1 \
  --model.average.half_life_images 4000 --model.optimizer_g.lr 3e-4 --model.optimizer_d.lr 3e-4 \
  --start_from "$name" --name "$name-fit" --budget.max_images "${IMAGES:-10000}" \
  --checkpoint.every_n_batches 250 --ckpt_path auto
sdm export "runs/$name-fit" "runs/$name-fit/$name.safetensors" --half true --discriminator true \
  --licence Apache-2.0 --overwrite true
