"""The embedded demo, real digits in a made-up story, and the generated data set."""
