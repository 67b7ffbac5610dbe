#!/bin/sh
# One cell of a sweep under W&B's agents: the agent calls this with a command and its options. The run's
# folder gets W&B's own id as its name (a sweep file cannot name it), and what was trained is tested.
# X.SCALE.yaml follows X.yaml where there is one (experiments/README.md), and the run is logged online, as the
# agent itself needs the server; WANDB_MODE=offline still wins.
# `sdm sweep` does the same by itself and does not need this file.
set -e
name="${WANDB_RUN_ID:-cell}"
export WANDB_RESUME=allow  # training and test are one run
command="$1"
shift
n=$#
while [ "$n" -gt 0 ]; do  # each word moves to the end, followed by the file for the scale
  word="$1"
  shift
  set -- "$@" "$word"
  scaled="${word%.yaml}.$SDM_SCALE.yaml"
  case "$word" in --config=*.yaml) [ ! -f "${scaled#--config=}" ] || set -- "$@" "$scaled" ;; esac
  n=$((n - 1))
done
set -- "$@" --config=configs/logger/wandb_online.yaml
if [ "$command" = fit ]; then
  # In the background, so that sh can pass a signal on while it waits. INT is ignored there.
  sdm fit "$@" --name "$name" --ckpt_path auto &
  child=$!
  trap 'kill -TERM $child' TERM INT
  status=0; wait $child || status=$?
  while kill -0 $child 2>/dev/null; do status=0; wait $child || status=$?; done
  [ $status -eq 0 ] || exit $status
  trap - TERM INT
  exec sdm test "$@" --name "$name" --ckpt_path last
fi
exec sdm "$command" "$@" --name "$name"
