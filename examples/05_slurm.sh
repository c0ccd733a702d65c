#!/usr/bin/env bash
# A search as a Slurm job: deploy/slurm.sh starts a Ray cluster of the job's own on its nodes. Say it in the root of the
# repository, which every node must see, as well as DATA and STORAGE. CHANGE the lines for your cluster; what is set here
# is set over the lines that begin with #SBATCH in deploy/slurm.sh.
#
#   bash examples/05_slurm.sh /shared/xd.store /shared/runs
set -euo pipefail
data=${1:?say: bash examples/05_slurm.sh DATA STORAGE}
storage=${2:?say: bash examples/05_slurm.sh DATA STORAGE}

sbatch --nodes=2 --gpus-per-node=1 --time=12:00:00 deploy/slurm.sh \
  --name first --data "$data" --storage "$storage" --shared-storage \
  --trials 60 --epochs 50 --confirm --gpus-per-trial 0.25 --cpus-per-trial 2

# It goes on by itself after it was preempted or ran into its time limit. From any shell that sees the storage:
#   python tune/search.py --status first --storage STORAGE
#   python tune/report.py first --storage STORAGE
