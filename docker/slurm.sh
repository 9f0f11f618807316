#!/bin/bash
# A search on a Slurm cluster, with a Ray node on each machine of the job:
#
#   sbatch --nodes=2 --gpus-per-node=4 docker/slurm.sh spaces/resnet.yaml --preset short
#
# Submit it from a folder that all machines share, in the environment that afi_search is installed in.
#SBATCH --job-name=afi-search
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

# This script runs on the first machine of the job, which is the head. Ports of the job's own let
# two jobs share a machine.
port=$((20000 + SLURM_JOB_ID % 10000))
address=$(python -c 'import ray.util; print(ray.util.get_node_ip_address())'):$port
export address port

export RAY_USAGE_STATS_ENABLED=0
# The cluster's token: drawn for this job, on the shared folder, for its owner's eyes alone.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$PWD/.ray-token-$SLURM_JOB_ID
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")

search=
end() {
    if [ -n "$search" ]; then kill -TERM "$search" || true; else exit 143; fi
}
trap end TERM

# srun does not take over --cpus-per-task by itself.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun bash -c '
    if [ "$SLURM_NODEID" = 0 ]; then
        exec ray start --head --port="$port" --dashboard-port=$((port + 10000)) \
            --num-cpus="$SLURM_CPUS_PER_TASK" --block
    fi
    exec ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block
' &
nodes=$!

# A search trains on the machines that are there when it starts.
echo "Waiting for $SLURM_JOB_NUM_NODES machines at $address"
joined() { ray status --address="$address" 2>/dev/null | grep -c '^ *1 node_'; }
until [ "$(joined)" -ge "$SLURM_JOB_NUM_NODES" ]; do
    kill -0 "$nodes" || { echo "Ray did not start; its reason stands above"; exit 1; }
    sleep 5
done

# SIGTERM, two minutes before the time is up, stops the search cleanly; the same sbatch goes on.
python -m afi_search.run "$@" --address "$address" &
search=$!
wait "$search" || true
wait "$search"
