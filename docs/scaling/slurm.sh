#!/bin/bash
# The study on several machines of a Slurm cluster: sbatch docs/scaling/slurm.sh
# The project and its models are in a folder that all machines see. The batch script runs on the first machine.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@600
set -euo pipefail
source .venv/bin/activate
export AGENTARK_HOURS=11.5 # less than --time: stages stop by themselves, and the same job goes on later
head=$(hostname)

# Generation: Ray on all machines, for teacher and engine `ray:vllm:`.
ray start --head --port=6379
if [ "$SLURM_NNODES" -gt 1 ]; then
  # Slurm's name of this machine, which need not be the host's.
  srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$SLURMD_NODENAME" \
    ray start --address="$head:6379" --block &
fi
export RAY_ADDRESS="$head:6379"

# Training: one launcher on each machine. Their number, that of the GPUs and this machine's name are in the configuration.
sed -e "s/^num_machines:.*/num_machines: $SLURM_NNODES/" -e "s/^num_processes:.*/num_processes: $((8 * SLURM_NNODES))/" \
  -e "s/^main_process_ip:.*/main_process_ip: $head/" -e "s/^main_process_port:.*/main_process_port: 29500/" \
  docs/scaling/fsdp2.yaml > fsdp2-job.yaml # named in params.yaml as sft.accelerate
export AGENTARK_LAUNCHER="srun --overlap --ntasks-per-node=1"

# Slurm sends TERM to this script alone. A stage must get it to stop after what is in flight; DVC would die of it and
# leave the stage behind. INT to the group of both, as by Ctrl-C: DVC ignores it while a stage runs.
set -m
dvc repro &
study=$!
trap 'told=yes; kill -INT -- "-$study"' TERM
told=yes
while [ "$told" ]; do # a signal ends the wait, not the study
  told="" status=0
  wait "$study" || status=$?
done
exit "$status"
