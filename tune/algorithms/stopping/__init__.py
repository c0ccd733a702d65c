"""Stopping rules, one a file: pure objects that can be replayed from logs."""
