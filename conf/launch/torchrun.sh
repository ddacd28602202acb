#!/bin/bash
# On every node: HOST=node0 NODES=2 RANK_OF_NODE=0 bash conf/launch/torchrun.sh run_dir=runs/long
# One process a GPU; node 0 is where the others meet. On one node: bash conf/launch/torchrun.sh run_dir=runs/long
set -euo pipefail
gpus=${GPUS:-8}

# SIGUSR1 is handed on too, and ranks have ten minutes to end the step and write the checkpoint;
# an older torchrun, which knows of neither, leaves these alone.
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 PET_SHUTDOWN_TIMEOUT=600
torchrun --nnodes="${NODES:-1}" --node-rank="${RANK_OF_NODE:-0}" --nproc-per-node="$gpus" \
  --rdzv-backend=c10d --rdzv-endpoint="${HOST:-localhost}:${PORT:-29500}" \
  -m sce.train trainer=fsdp trainer.devices="$gpus" trainer.num_nodes="${NODES:-1}" "$@"
