#!/bin/bash
# Runs a command as a job array on SLURM, then once more to gather what the jobs left:
#
#   SBATCH_OPTIONS="--time=04:00:00 --cpus-per-task=4" scripts/array.sh 5 neuroformer folds --config mine.yaml --only={}
#   SBATCH_OPTIONS="--gpus=1" scripts/array.sh 8 neuroformer sweep --config mine.yaml --space space.yaml --trials 40
#
# {} is the number of the job, counted from 0; the last command is the same without the words that hold it. It runs if all jobs
# ended well. Where some were killed, submit again: what is done is not done again. A job that the system stopped (exit code 75)
# goes back into the queue by itself.
set -euo pipefail
num=$1
shift
job='' last=''
for word in "$@"; do
  quoted=$(printf '%q ' "$word")
  job+=${quoted//'\{\}'/'"$SLURM_ARRAY_TASK_ID"'}
  [[ $word == *'{}'* ]] || last+=$quoted
done
again='code=$?; [ $code -eq 75 ] && scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"; exit $code'
# shellcheck disable=SC2086
id=$(sbatch --parsable --requeue --signal=USR1@120 ${SBATCH_OPTIONS:-} --array="0-$((num - 1))" --wrap "$job; $again")
# shellcheck disable=SC2086
sbatch --parsable ${SBATCH_OPTIONS:-} --dependency="afterok:$id" --kill-on-invalid-dep=yes --wrap "$last"
