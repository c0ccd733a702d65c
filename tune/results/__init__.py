"""A run read: typed rows, ranking, access to test labels, replay."""
