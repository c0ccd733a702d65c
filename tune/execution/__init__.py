"""Who runs: phases, batches of trials under Ray Tune, failures, logs, progress."""
