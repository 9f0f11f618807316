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

port=${RAY_PORT:-6379}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}'):$port

# The cluster's token: drawn for this job, on the shared folder, for its owner's eyes alone.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$PWD/.ray-token-$SLURM_JOB_ID
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")

search=
end() {
    [ -z "$search" ] || kill -TERM "$search" 2>/dev/null || true
}
trap end TERM
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

srun --nodes=1 --ntasks=1 -w "$head" \
    ray start --head --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
sleep 15
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) \
        --exclude="$head" \
        ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
    sleep 15
fi

# The batch script runs on the first machine, beside the head. SIGTERM, two minutes before the time
# is up, stops the search cleanly; the same sbatch goes on.
python -m afi_search.run "$@" --address "$address" &
search=$!
wait "$search" || true
wait "$search"
