"""The command lines: click and nothing else."""
