#!/bin/sh
# One cell of a sweep under W&B's agents: the agent calls this with a verb and its options. The run's
# folder gets W&B's own id as its name (a sweep file cannot name it), and what was trained is tested.
# `sdm sweep` does the same by itself and does not need this file.
set -e
name="${WANDB_RUN_ID:-cell}"
export WANDB_RESUME=allow  # training and test are one run
verb="$1"
shift
if [ "$verb" = fit ]; then
  sdm fit "$@" --name "$name" --ckpt_path auto
  exec sdm test "$@" --name "$name" --ckpt_path last
fi
exec sdm "$verb" "$@" --name "$name"
