"""A run as pages, in HTML, in Markdown and on the terminal."""
