"""The subcommands of `python -m macil`, and what every command line of the project shares."""
