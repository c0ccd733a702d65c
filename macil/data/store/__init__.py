"""The Arrow store of features: written, opened, verified, brought to another host."""
