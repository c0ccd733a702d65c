"""A trained network used: loading, scores, segments, timelines, and its file formats."""
