"""What will be run: options, plan, run specification, sweeps, space."""
