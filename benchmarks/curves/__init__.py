"""Recorded trainings: many configurations, each with many seeds, epoch by epoch, to judge decisions by."""
