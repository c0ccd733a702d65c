"""Scores of whole videos, average precision, and what a protocol measures after an epoch."""
