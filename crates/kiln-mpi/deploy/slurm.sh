#!/bin/sh
# A training on four nodes: sbatch slurm.sh RECIPE OUT
# RECIPE, its data and OUT lie on a file system that all nodes share. The program is built with `--features mpi`.
#SBATCH --job-name=kiln
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
# Five minutes before the end every process is asked to save and stop; submitted again, the job goes on from there.
#SBATCH --signal=TERM@300
#SBATCH --requeue
set -eu

recipe=${1:?the recipe}
out=${2:?the folder of the run}
export RAYON_NUM_THREADS="$SLURM_CPUS_PER_TASK"

resume=
if [ -e "$out/run.toml" ]; then
    resume=--resume
fi
# --kill-on-bad-exit ends all processes when one fails.
exec srun --mpi=pmix --cpu-bind=none --kill-on-bad-exit=1 kiln train --recipe "$recipe" --out "$out" $resume
