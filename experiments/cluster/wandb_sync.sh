#!/bin/sh
# On a node with internet: upload the W&B runs that compute nodes wrote offline, those of the given
# run folders or of all below runs/. What is uploaded is marked by wandb and not sent twice.
set -eu
[ $# -gt 0 ] || set -- runs
find "$@" -type d -name 'offline-run-*' | sort | while read -r run; do
  wandb sync "$run"
done
