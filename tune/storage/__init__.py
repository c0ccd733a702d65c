"""A run's files on disk or in a bucket: their names, their formats, what trials have logged and saved."""
