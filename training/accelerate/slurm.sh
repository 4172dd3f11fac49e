#!/usr/bin/env bash
# Several nodes of 4 GPUs under Slurm: sbatch training/accelerate/slurm.sh RECIPE [OPTIONS of pretrain.py]
#SBATCH --job-name=spectral-tokenizer
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
# Slurm takes nodes back with SIGTERM: the run writes a checkpoint and leaves, and goes on from it when it is requeued. Where
# the time is up it is not requeued by itself: submit the same line again. The launcher's exit code is 1 then.
#SBATCH --signal=TERM@120
set -euo pipefail
recipe=${1:?usage: sbatch training/accelerate/slurm.sh RECIPE [OPTIONS]}
shift
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export GPUS_PER_NODE=4 HEAD_ADDRESS=$head
# The launcher would kill its processes half a minute after the signal; srun has not taken over this number since Slurm 22.05.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=110 SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-32}
# Of its own for each job, as jobs may share a node; --kill-on-bad-exit, as the other nodes would wait for one that is gone.
export HEAD_PORT=$((20000 + SLURM_JOB_ID % 10000))
exec srun --kill-on-bad-exit=1 bash -c 'exec accelerate launch --config_file training/accelerate/four_gpus.yaml \
    --num_machines "$SLURM_NNODES" --num_processes $((SLURM_NNODES * GPUS_PER_NODE)) --machine_rank "$SLURM_PROCID" \
    --main_process_ip "$HEAD_ADDRESS" --main_process_port "$HEAD_PORT" --rdzv_backend static \
    training/pretrain.py --config "$0" --resume auto "$@"' "$recipe" "$@"
