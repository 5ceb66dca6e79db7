#!/bin/sh
# Start several Dask workers per GPU of this machine. They share the GPU; each sees only that GPU and computes one unit
# at a time. AFFWILD2_WORKERS_PER_GPU sets their number (default 4).
# The script ends all workers and exits when one of them ends for good, so that its supervisor restarts it.
# Usage: gpu_workers.sh tcp://HOST:8786
set -eu
scheduler=${1:?usage: gpu_workers.sh tcp://HOST:8786}
gpus=${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader | tr '\n' ',')}
pids=
port=8789
trap 'kill -TERM $pids 2>/dev/null || true; wait' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
for gpu in $(printf %s "$gpus" | tr ',' ' '); do
  for _ in $(seq "${AFFWILD2_WORKERS_PER_GPU:-4}"); do
    CUDA_VISIBLE_DEVICES=$gpu dask worker "$scheduler" --nworkers 1 --nthreads 1 --resources GPU=1 \
      --memory-limit "${AFFWILD2_WORKER_MEMORY:-8GiB}" --dashboard-address ":$port" &
    pids="$pids $!"
    port=$((port + 1))
  done
done
[ -n "$pids" ] || { echo "gpu_workers.sh: expected at least one GPU, but nvidia-smi lists none" >&2; exit 2; }
# shellcheck disable=SC2086 # a list of process ids
while kill -0 $pids 2>/dev/null; do
  sleep 2 &
  wait $!
done
exit 1
