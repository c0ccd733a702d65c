"""Numbers computed from a run's rows: intervals, p-values, agreement."""
