#!/bin/sh
# Two "nodes" of one CPU process each on this machine, over gloo: what a cluster does, on a small scale.
#   experiments/cluster/two_nodes_here.sh fit --config ... --name trial
# Ends with the highest exit status of the two; a SIGTERM to it reaches both.
set -u
here="$(dirname "$0")"
export NODES=2 GPUS=1 ACCELERATOR=cpu MASTER=127.0.0.1 PORT="${PORT:-29511}"
NODE_RANK=0 "$here/torchrun_node.sh" "$@" &
first=$!
NODE_RANK=1 "$here/torchrun_node.sh" "$@" &
second=$!
trap 'kill -TERM $first $second' TERM INT
wait $first; a=$?
while kill -0 $first 2>/dev/null; do wait $first; a=$?; done
wait $second; b=$?
while kill -0 $second 2>/dev/null; do wait $second; b=$?; done
[ $a -ge $b ] && exit $a
exit $b
