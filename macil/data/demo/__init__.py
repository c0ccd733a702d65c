"""The generated demo data set."""
