"""A run in sentences."""
