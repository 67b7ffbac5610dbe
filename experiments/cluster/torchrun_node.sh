#!/bin/sh
# One node of a run over several, started on every node alike, by any launcher:
#
#   NODES=4 GPUS=8 NODE_RANK=0 MASTER=node0 experiments/cluster/torchrun_node.sh fit \
#       --config configs/model/sdm_512.yaml --config configs/data/places2_512.yaml \
#       --config configs/trainer/multinode.yaml --name places2 --ckpt_path auto
#
# NODES      nodes in all (1)
# GPUS       processes on this node, one for each GPU (1)
# NODE_RANK  0 .. NODES-1 (0)
# MASTER     host name of node 0 (127.0.0.1)
# PORT       free on node 0, the same everywhere (29500)
# ACCELERATOR  gpu, or cpu to try it without GPUs (gpu)
# CACHE      folder on this node's own disk for shards fetched over the network, empty for none.
#            Shard names hold a hash of their content's origin, so several data sets share a folder.
# PYTHON     the interpreter of the environment (python)
#
# Exit status 75: the run was asked to stop (SIGTERM, SIGUSR1) and left a checkpoint; the same
# command goes on from it. On a signal, torchrun (of torch 2.14) waits TORCH_ELASTIC_SHUTDOWN_TIMEOUT
# seconds (600) for the batch and the checkpoint; older ones, which do not read it, kill after 30.
set -eu
command="$1"
shift
set -- "$@" --trainer.num_nodes "${NODES:-1}" --trainer.devices "${GPUS:-1}" \
    --trainer.accelerator "${ACCELERATOR:-gpu}"
if [ -n "${CACHE:-}" ]; then
  set -- "$@" --data.cache_dir "$CACHE"
fi
export WANDB_MODE="${WANDB_MODE:-offline}"  # compute nodes rarely reach the internet: wandb_sync.sh
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}"
exec "${PYTHON:-python}" "$(dirname "$0")/elastic.py" \
    --nnodes "${NODES:-1}" --nproc_per_node "${GPUS:-1}" --node_rank "${NODE_RANK:-0}" \
    --master_addr "${MASTER:-127.0.0.1}" --master_port "${PORT:-29500}" \
    -m sdm_lightning "$command" "$@"
