"""A run in tables."""
