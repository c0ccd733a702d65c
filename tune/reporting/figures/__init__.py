"""The pictures of a report, one figure a file."""
