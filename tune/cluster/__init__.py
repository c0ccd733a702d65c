"""Several hosts: workers, the autoscaler, what a host must have."""
