#!/usr/bin/env bash
#SBATCH --job-name=c3
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm_%j.txt
# run_slurm.sh: the paper's run on several machines under Slurm: sbatch scripts/run_slurm.sh [options of train_c3]. Sent
# off from the repository's root, which all machines see, as they must see models, pages and the run's folder.
#
# One task is one rank is one GPU. MPI carries ranks and the id of NCCL, NCCL the data: name the network's cards in
# NCCL_SOCKET_IFNAME and NCCL_IB_HCA where it does not find them by itself. 256 pages a step over 32 ranks: 2 pages a
# micro-batch, 4 micro-batches.
#
# Without PMI between srun and MPI (MPI=pmi2, ... where pmix is not there) tasks do not meet: each says so and stops. One
# that ends with an error ends all.
#
# Five minutes before the time is up Slurm sends USR1 to the ranks: they finish the step, save and exit with 0; the job,
# sent off again, goes on from there.
#
# Predicted, not measured: 32 x H100, 0.43 s a step (0.40 to 0.46), 40,000 steps in 4.7 h, if the network between the
# machines is as fast as NVLink. A rank has 18.0 GB of gradients to send behind a backward pass of 0.26 s and 9.0 GB of
# parameters behind a forward pass of 0.13 s: with eight cards of 400 Gbit/s a machine that hides; with one, 50 GB/s, it
# takes 0.36 + 0.18 s and a step about 0.63 s.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
. scripts/common.sh

ranks=${SLURM_NTASKS:?not under Slurm (hint: sbatch scripts/run_slurm.sh)}
pages=256 batch=2
[ $((pages % (ranks * batch))) = 0 ] || die "$ranks ranks: expected a divisor of $((pages / batch))"
mkdir -p runs
run srun --mpi="${MPI:-pmix}" --cpu-bind=none --kill-on-bad-exit=1 ./train_c3 -b $batch -g $((pages / (ranks * batch))) -lr 1e-5 \
    -steps 40000 -save_minutes 60 "$@"
