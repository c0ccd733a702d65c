"""Data in the XD-Violence layout: names, lists, annotations, feature files, read and checked."""
